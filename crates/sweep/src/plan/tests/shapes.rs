//! The ladder and the match of experts, over their whole range.

use super::*;
use crate::model::{Experts, Model};
use crate::plan::experts::{Match, matched};
use crate::plan::ladder::Wanted;

fn ladder(params: u64) -> Result<Model, String> {
    Wanted { params: Some(params), context: 256, vocab: 256, ..Wanted::default() }.dense()
}

fn experts(count: u32, top_k: u32) -> Experts {
    Experts {
        count,
        top_k,
        ff: 0,
        shared_ff: 0,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 0.0,
        bias_update: 0.0,
        capacity_factor: None,
    }
}

proptest! {
    #[test]
    fn the_ladder_is_near_its_target_from_5k_to_10b(exponent in 3.7_f64..10.0) {
        let target = 10_f64.powf(exponent).round();
        let model = ladder(target as u64).map_err(TestCaseError::fail)?;
        let ratio = model.param_counts().non_embedding.as_f64() / target;
        prop_assert!((ratio - 1.0).abs() <= 0.10, "{target} -> {model:?}");
        prop_assert!(model.width.is_multiple_of(8) && model.ff.is_multiple_of(8));
        prop_assert!(model.head_width() >= 16 && model.head_width() <= 128 && model.head_width().is_multiple_of(2));
        let feed_forward = f64::from(model.ff) / f64::from(model.width);
        prop_assert!((1.9..3.6).contains(&feed_forward), "{model:?}");
    }

    #[test]
    fn experts_match_their_twin_within_two_percent(
        exponent in 4.0_f64..9.0,
        count in 2_u32..=32,
        top_k in 1_u32..=2,
        by in prop::sample::select(vec![Match::Active, Match::Flops]),
    ) {
        let twin = ladder(10_f64.powf(exponent) as u64).map_err(TestCaseError::fail)?;
        let model = matched(&twin, &experts(count, top_k), by, true).map_err(TestCaseError::fail)?;
        let measure = |model: &Model| match by {
            Match::Flops => model.flop_terms().training(),
            _ => model.param_counts().active_non_embedding.as_f64(),
        };
        prop_assert!((measure(&model) / measure(&twin) - 1.0).abs() <= 0.02);
        prop_assert_eq!(model.defect(), None);
    }

    #[test]
    fn experts_match_the_total_of_their_twin(exponent in 4.7_f64..9.0, count in 2_u32..=8) {
        let twin = ladder(10_f64.powf(exponent) as u64).map_err(TestCaseError::fail)?;
        let model = matched(&twin, &experts(count, 1), Match::Total, true).map_err(TestCaseError::fail)?;
        let total = |model: &Model| model.param_counts().non_embedding.as_f64();
        prop_assert!((total(&model) / total(&twin) - 1.0).abs() <= 0.02);
    }
}

#[test]
fn sizes_grow_with_the_target_and_too_small_ones_are_refused() {
    let sizes: Vec<u64> = (0..40)
        .map(|step| 5e3 * 1.4_f64.powi(step))
        .map(|target| ladder(target as u64).unwrap().param_counts().non_embedding.get())
        .collect();
    assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
    assert!(ladder(500).unwrap_err().contains("nearest"));
}

#[test]
fn fixed_parts_of_a_shape_are_kept() {
    let wanted = Wanted { params: Some(400_000), layers: Some(6), context: 128, vocab: 256, ..Wanted::default() };
    assert_eq!(wanted.dense().unwrap().layers, 6);
    let by_hand = Wanted { params: None, width: Some(64), ..wanted };
    let model = by_hand.dense().unwrap();
    assert_eq!((model.width, model.layers, model.heads, model.ff), (64, 6, 4, 176));
    assert!(Wanted { layers: None, ..by_hand }.dense().is_err());
}
