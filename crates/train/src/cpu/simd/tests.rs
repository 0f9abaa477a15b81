use super::{Kernel, Level, Simd, exp, exp_sum, maximum, stream, sum_products};

struct Exponentials(Vec<f32>);

impl Kernel for Exponentials {
    type Output = Vec<f32>;
    fn run<S: Simd>(mut self, simd: S) -> Vec<f32> {
        stream(
            simd,
            [],
            [&mut self.0],
            #[inline(always)]
            |[], [x]| [exp(simd, x)],
        );
        self.0
    }
}

struct Reductions(Vec<f32>);

impl Kernel for Reductions {
    type Output = (f32, f32, f32);
    fn run<S: Simd>(mut self, simd: S) -> (f32, f32, f32) {
        let products = sum_products(simd, &self.0, &self.0);
        let most = maximum(simd, &self.0);
        (products, most, exp_sum(simd, &mut self.0, most))
    }
}

#[test]
fn exponential_agrees_with_the_library_on_every_path() {
    let x: Vec<f32> = (0..20_003).map(|i| -100.0 + 0.009 * i as f32).filter(|x| *x < 88.0).collect();
    for level in Level::available() {
        let found = level.run(Exponentials(x.clone()));
        for (x, e) in x.iter().zip(found) {
            let expected = if *x < -87.0 { 0.0 } else { f64::from(*x).exp() };
            let error = (f64::from(e) - expected).abs();
            assert!(error <= 2e-7 * expected, "{}: exp({x}) = {e}, expected {expected}", level.name());
        }
    }
}

#[test]
fn not_a_number_stays_visible() {
    for level in Level::available() {
        let found = level.run(Exponentials(vec![f32::NEG_INFINITY; 5]));
        assert_eq!(found, [0.0; 5], "{}", level.name());
        let (products, ..) = level.run(Reductions(vec![f32::NAN; 37]));
        assert!(products.is_nan(), "{}", level.name());
    }
}

#[test]
fn reductions_handle_every_tail() {
    for level in Level::available() {
        for len in 1..70 {
            let x: Vec<f32> = (0..len).map(|i| ((i * 7 + 3) % 11) as f32 - 5.5).collect();
            let (products, most, sum) = level.run(Reductions(x.clone()));
            let expected: f32 = x.iter().map(|x| x * x).sum();
            assert!((products - expected).abs() <= 1e-5 * expected, "{} {len}", level.name());
            let expected = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(most, expected, "{} {len}", level.name());
            let expected: f32 = x.iter().map(|x| (x - most).exp()).sum();
            assert!((sum - expected).abs() <= 1e-5 * expected, "{} {len}", level.name());
        }
    }
}
