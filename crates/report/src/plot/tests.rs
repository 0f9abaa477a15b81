use super::*;

#[test]
fn ticks_are_round_and_inside() {
    let words = |axis: &Axis| axis.ticks(6).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
    assert_eq!(words(&Axis::linear(1.93, 3.41, "")), ["2.0", "2.2", "2.4", "2.6", "2.8", "3.0", "3.2", "3.4"]);
    assert_eq!(words(&Axis::log(5e4, 8e5, "").counts()), ["50k", "100k", "200k", "500k"]);
    assert_eq!(words(&Axis::log(3e11, 2e14, "").powers()).last().unwrap(), "10\u{b9}\u{2074}");
    let percents = words(&Axis::linear(-0.021, 0.021, "").percents());
    assert_eq!([&percents[0], &percents[4], &percents[8]], ["\u{2212}2.0 %", "0.0 %", "+2.0 %"]);
    for (low, high) in [(1e-3, 1.1e-3), (0.5, 1e9), (7.0, 7.1), (1.0, 1e30)] {
        for axis in [Axis::log(low, high, ""), Axis::linear(low, high, "")] {
            let ticks = axis.ticks(6);
            assert!((1..=12).contains(&ticks.len()), "{low}..{high} has {} ticks", ticks.len());
            assert!(ticks.iter().all(|(v, _)| (-1e-6..=1.0 + 1e-6).contains(&axis.at(*v))), "{low}..{high}");
        }
    }
}

#[test]
fn numbers_are_written_without_idle_digits() {
    assert_eq!([50e3, 1.6e6, 1.25e6, 100.0].map(short_si), ["50k", "1.6M", "1.25M", "100"]);
    assert_eq!([1e12, 2.5e13, 9.99e8, 1e-2].map(power), ["10¹²", "2.5·10¹³", "10⁹", "10⁻²"]);
}

#[test]
fn labels_move_apart_and_keep_their_order() {
    let wanted = [10.0, 11.0, 12.0, 90.0, 50.0];
    let placed = spread(&wanted, 15.0, 0.0, 100.0);
    let mut order: Vec<(f64, f64)> = wanted.into_iter().zip(placed.iter().copied()).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(order.windows(2).all(|w| w[1].1 - w[0].1 >= 15.0 - 1e-9), "{order:?}");
    assert!(placed.iter().all(|y| (0.0..=100.0).contains(y)), "{placed:?}");
    assert_eq!((placed[3], placed[4]), (90.0, 50.0), "a label with room stays");
}

#[test]
fn text_cannot_leave_its_element() {
    let hostile = "</text><script>alert('1')</script>&\"\u{0}";
    let mut plot = Plot::new(
        "t",
        Rect { x: 50.0, y: 30.0, width: 300.0, height: 200.0 },
        Axis::log(1.0, 10.0, hostile),
        Axis::linear(0.0, 1.0, hostile),
    );
    let tip = Tip { run: Some(hostile.to_owned()), arm: Some(hostile.to_owned()), text: hostile.to_owned() };
    plot.mark(2.0, 0.5, Shape::Circle, Paint::Arm(0), 4.0, &tip);
    plot.end_label(0.5, hostile, Paint::Ink, Some(hostile));
    let svg = document(400.0, 300.0, hostile, &[plot.finish()]);
    assert!(!svg.contains("<script") && !svg.contains('\u{0}'));
    assert_eq!(svg.matches("&lt;script&gt;").count(), 8);
}
