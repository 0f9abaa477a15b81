//! The kernel sources, as the programs that a model needs. Those that know little of the model are compiled for many.

use isoloss_gpu::{Kind, Program};
use isoloss_sweep::Model;

use super::gated::Inside;
use super::network::Network;

macro_rules! source {
    ($name:literal) => {
        ($name, include_str!(concat!("kernels/", $name)))
    };
}

/// All programs of a model in this precision.
pub fn programs(model: &Model, kind: Kind) -> Vec<Program> {
    let real = (kind == Kind::F32).then(|| "REAL_F32".to_owned());
    let program = |files: &[(&'static str, &'static str)], defines: &[String]| Program {
        files: files.to_vec(),
        defines: real.iter().chain(defines).cloned().collect(),
    };
    let mut by_head = vec![source!("rope.cu"), source!("attention_slices.cu")];
    if Network::fused_attention(model, kind) {
        by_head.extend([source!("attention_tiles.cu"), source!("attention.cu")]);
    } else {
        by_head.push(source!("attention_plain.cu"));
    }
    let inside = Inside::of(model, kind);
    if inside.rotation {
        by_head.extend([source!("tiles.cu"), source!("turned.cu")]);
    }
    let common = [
        source!("norm.cu"),
        source!("swiglu_terms.cu"),
        source!("swiglu.cu"),
        source!("embedding.cu"),
        source!("entropy.cu"),
        source!("optimizer.cu"),
        source!("report.cu"),
    ];
    let head = format!("HEAD={}", model.head_width());
    let mut programs = vec![program(&common, &[]), program(&by_head, &[head])];
    if inside.gradient || inside.experts {
        programs.push(program(&[source!("tiles.cu"), source!("swiglu_terms.cu"), source!("gated.cu")], &[]));
    }
    if let Some(experts) = &model.experts {
        let sizes = [format!("EXPERTS={}", experts.count), format!("TOP_K={}", experts.top_k)];
        let files = [source!("router.cu"), source!("experts.cu"), source!("tiles.cu"), source!("grouped.cu")];
        programs.push(program(&files, &sizes));
    }
    programs
}
