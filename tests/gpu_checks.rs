//! `gpu-check` and `bench --engine cuda`: which GPU they take, and what a broken one does to the checks.

use crate::binary::expect;
use crate::gpu_lab::{FIRST, Lab, SECOND, text};

/// They say which one they use, and use that one.
#[test]
fn checks_and_measurements_take_the_first_gpu_that_can_be_used() {
    let Some(lab) = Lab::new() else { return };
    let broken = |gpu: &str, arguments: &[&str]| {
        let mut command = lab.isoloss("first", 2);
        command.args(arguments).env("ISOLOSS_STANDIN_BROKEN", gpu);
        command
    };
    let kept = lab.dir("checks");
    // One check is begun at least, and few after it.
    let check = ["gpu-check", "--seconds", "1", "--keep", kept.to_str().unwrap()];
    let checked = broken("0", &check).output().unwrap();
    let said = text(checked.stderr);
    let warned = format!("warning: GPU 0, stand-in GPU, {FIRST}: cuDevicePrimaryCtxRetain failed: CUDA_ERROR_UNKNOWN");
    assert!(said.contains(&warned), "{said}");
    assert!(said.contains(&format!("checking the cuda engine on GPU 1, stand-in GPU, {SECOND}\n")), "{said}");
    let made =
        |checked: &[u8]| String::from_utf8_lossy(checked).lines().filter(|line| line.contains("gradients")).count();
    assert!(said.contains("\nok gradients, ") && !said.contains("WRONG"), "{said}");
    assert!(made(&checked.stdout) > 0);
    // Another card of its kind goes on.
    let checked = broken("1", &check).output().unwrap();
    let said = text(checked.stderr);
    assert!(said.contains(&format!("checking the cuda engine on GPU 0, stand-in GPU, {FIRST}\n")), "{said}");
    assert!(!said.contains("gradients, dense, f32") && made(&checked.stdout) > 1, "{said}");

    let bench =
        ["bench", "--engine", "cuda", "--shape", "0.2M", "--precision", "bf16", "--seconds", "0", "--batch", "1"];
    let measured = broken("0", &bench).env("ISOLOSS_STANDIN_PRODUCT_MOST", "1").output().unwrap();
    let said = text(measured.stderr);
    assert!(
        measured.status.success() && said.contains(&format!("measuring on GPU 1, stand-in GPU, {SECOND}\n")),
        "{said}"
    );
    let none = lab.isoloss("first", 0).args(bench).output().unwrap();
    assert!(text(none.stderr).contains("bench: the driver shows no GPU; see CUDA_VISIBLE_DEVICES and nvidia-smi"));
}

#[test]
fn a_context_that_breaks_is_no_verdict_on_the_checks_after_it() {
    let Some(lab) = Lab::new() else { return };
    let mut breaking = lab.isoloss("first", 1);
    breaking.args(["gpu-check", "--seconds", "600"]).env("ISOLOSS_STANDIN_FAIL", "cuGraphLaunch:1:719");
    let said = text(expect(1, &mut breaking).stderr);
    assert!(said.matches("\nWRONG ").count() == 1, "{said}");
    assert!(said.contains("1 of 2 checks failed, the GPU's context broke in the last one, "), "{said}");
}
