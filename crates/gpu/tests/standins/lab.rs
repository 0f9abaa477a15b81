//! What the tests share: a process with stand-ins, a GPU in it, and kernels that show what arrives where.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use isoloss_gpu::{Argument, Card, Command, Device, Gpu, Launch, Program, cards};

use crate::built::{Standins, standins};

/// Set in the process that works.
pub(crate) const INSIDE: &str = "ISOLOSS_STANDIN_INSIDE";

pub(crate) fn build(without: &[&str]) -> Option<Standins> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("standin");
    standins(&sources, Path::new(env!("CARGO_TARGET_TMPDIR")), without)
}

/// Does `work` of the test `name` in a process of its own, on stand-ins without some functions and with an environment.
pub(crate) fn on_standins(name: &str, without: &[&str], environment: &[(&str, &str)], work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    let Some(standins) = build(without) else { return };
    let mut command = Process::new(std::env::current_exe().unwrap());
    standins.before(&mut command, 2);
    command.args([name, "--exact", "--nocapture"]).env(INSIDE, "1").envs(environment.iter().copied());
    let output = command.output().unwrap();
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{said}");
    assert!(!said.contains("panicked") && !said.contains("are left in a context"), "{said}");
}

/// Kernels that show what arrives where, one of them with static and dynamic shared memory.
pub(crate) fn program() -> Program {
    let text = r#"
// grid (ceil(count / 128)), block 128, no shared
extern "C" __global__ void __launch_bounds__(128) scale(float *to, const float *from, float by, u64 count, int add) {
    u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) {
        to[i] = by * from[i] + static_cast<float>(add);
    }
}
EXPORT(scale)

// grid (1), block 64, 4 bytes for each of `count`
extern "C" __global__ void __launch_bounds__(64) turned(float *to, int count) {
    SHARED_DYNAMIC(room);
    __shared__ float first[32];
    float *all = reinterpret_cast<float *>(room);
    for (int i = threadIdx.x; i < count; i += 64) {
        all[i] = to[i];
    }
    if (threadIdx.x < 32) {
        first[threadIdx.x] = to[threadIdx.x];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += 64) {
        to[i] = i == 0 ? first[31] : all[count - 1 - i];
    }
}
EXPORT(turned)

// grid (1), block 32: as many elements as it is told, which may be too many
extern "C" __global__ void __launch_bounds__(32) fill(float *to, int count) {
    for (int i = threadIdx.x; i < count; i += 32) {
        to[i] = 1.0f;
    }
}
EXPORT(fill)
"#;
    Program { files: vec![("test.cu", text)], defines: vec!["UNUSED=1".to_owned()] }
}

pub(crate) fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("XDG_CACHE_HOME").unwrap()).join("tests")
}

/// All GPUs, none of which is broken.
pub(crate) fn whole() -> Vec<Card> {
    cards().unwrap().into_iter().map(Result::unwrap).collect()
}

pub(crate) fn open() -> Gpu {
    let mut gpu = Gpu::open(0, &cache()).unwrap();
    gpu.load(&program()).unwrap();
    gpu
}

pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn read(gpu: &mut Gpu, from: u64, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    gpu.read(from, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

pub(crate) fn scale(to: u64, from: u64, by: f32, count: u64, add: i32) -> Command {
    let arguments = vec![
        Argument::Address(to),
        Argument::Address(from),
        Argument::Float(by),
        Argument::Long(count),
        Argument::Int(add),
    ];
    let grid = [u32::try_from(count.div_ceil(128)).unwrap(), 1, 1];
    Command::Launch(Launch { kernel: "scale", grid, block: 128, shared: 0, arguments })
}

pub(crate) fn on_one_block(kernel: &'static str, block: u32, shared: u32, to: u64, count: i32) -> Command {
    let arguments = vec![Argument::Address(to), Argument::Int(count)];
    Command::Launch(Launch { kernel, grid: [1, 1, 1], block, shared, arguments })
}
