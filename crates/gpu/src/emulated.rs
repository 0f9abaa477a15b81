//! A device made of the host's memory and processor: kernels run thread by thread, products in plain loops.
//!
//! It is for tests of arithmetic, of barriers and of the order of commands; its speed says nothing.

mod sums;

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use libloading::{Library, Symbol};

use crate::command::{Command, Launch};
use crate::device::{Address, Device, GpuError, Graph, Memory};
use crate::product::{Kind, Matrix, Product};
use crate::program::Program;

pub use sums::EmulatedSums;

const MACHINE: &str = concat!(include_str!("emulated/machine.hpp"), include_str!("emulated/builtins.hpp"));
/// Addresses start on this, as on a GPU.
const ALIGNMENT: usize = 256;

type LaunchFn = unsafe extern "C" fn(*const c_char, *const u32, *const u32, usize, u64, *const *mut c_void) -> c_int;

/// See the module.
pub struct Emulated {
    /// Where compiled programs are kept.
    cache: PathBuf,
    programs: Vec<Library>,
    blocks: Vec<Vec<Line>>,
    graphs: Vec<Vec<Command>>,
    /// Bytes that may be given out, and that are.
    limit: u64,
    given: u64,
    /// Chooses the order of threads.
    seed: u64,
}

/// Lines before and behind each allocation that nobody may touch; looked at after every command.
const GUARD: usize = 16;

/// 256 bytes on 256 bytes.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line([u8; ALIGNMENT]);

impl Emulated {
    /// A device with `limit` bytes, whose compiled programs are kept in `cache`. Fails where there is no C++ compiler.
    pub fn new(cache: &Path, limit: u64, seed: u64) -> Result<Self, GpuError> {
        let found = Process::new("c++").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err(GpuError::Missing {
                library: "C++ compiler",
                hint: "the emulated device compiles kernels with `c++`; install g++ or clang++".to_owned(),
            });
        }
        std::fs::create_dir_all(cache).map_err(|source| GpuError::Io { path: cache.to_owned(), source })?;
        Ok(Self {
            cache: cache.to_owned(),
            programs: Vec::new(),
            blocks: Vec::new(),
            graphs: Vec::new(),
            limit,
            given: 0,
            seed,
        })
    }

    /// The program as a shared library, compiled now if it is not in the cache.
    fn build(&self, program: &Program) -> Result<PathBuf, GpuError> {
        let name = program.key(MACHINE, "c++ 1");
        let library = self.cache.join(format!("{name}.so"));
        if library.exists() {
            return Ok(library);
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| GpuError::Io { path, source }
        };
        let folder = tempfile_in(&self.cache, &name)?;
        let source = folder.join("program.cpp");
        std::fs::write(&source, program.text(MACHINE)).map_err(io(&source))?;
        let made = folder.join("program.so");
        let output = Process::new("c++")
            .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-w", "-o"])
            .arg(&made)
            .arg(&source)
            .args(program.defines.iter().map(|define| format!("-D{define}")))
            .output()
            .map_err(io(Path::new("c++")))?;
        if !output.status.success() {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(GpuError::Compile { architecture: "the emulated device".to_owned(), log });
        }
        // Renamed whole: somebody else may be making the same.
        std::fs::rename(&made, &library).map_err(io(&library))?;
        std::fs::remove_dir_all(&folder).map_err(io(&folder))?;
        Ok(library)
    }

    #[expect(unsafe_code, reason = "calls into a library that was compiled from the kernel sources")]
    fn launch(&mut self, launch: &Launch) -> Result<(), GpuError> {
        let name = CString::new(launch.kernel).expect("names of kernels hold no zero byte");
        let mut values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bytes()).collect();
        let pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        self.seed = self.seed.wrapping_add(1);
        for program in &self.programs {
            // SAFETY: the symbol has this type (emulated/machine.hpp); the arguments live until it returns, and the kernel
            // reads as many as it has. Its pointers are as good as the command's.
            let found = unsafe {
                let call: Symbol<'_, LaunchFn> = program.get(b"emulated_launch").map_err(|error| GpuError::Driver {
                    what: "finding the emulated machine".to_owned(),
                    code: error.to_string(),
                })?;
                let block = [launch.block, 1, 1];
                let (grid, shared) = (launch.grid.as_ptr(), launch.shared as usize);
                call(name.as_ptr(), grid, block.as_ptr(), shared, self.seed, pointers.as_ptr())
            };
            if found == 0 {
                return Ok(());
            }
        }
        Err(GpuError::NoKernel(launch.kernel.to_owned()))
    }
}

/// A folder of this process and thread alone.
fn tempfile_in(cache: &Path, name: &str) -> Result<PathBuf, GpuError> {
    let folder = cache.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&folder).map_err(|source| GpuError::Io { path: folder.clone(), source })?;
    Ok(folder)
}

impl Device for Emulated {
    fn name(&self) -> String {
        "emulated GPU".to_owned()
    }

    fn memory(&self) -> Result<Memory, GpuError> {
        Ok(Memory { free: self.limit - self.given, total: self.limit })
    }

    fn allocate(&mut self, what: &str, bytes: u64) -> Result<Address, GpuError> {
        let free = self.limit - self.given;
        if bytes > free {
            return Err(GpuError::OutOfMemory { what: what.to_owned(), wanted: bytes, free });
        }
        self.given += bytes;
        // All bits set: a read of what nobody wrote shows as not-a-number.
        let block = vec![Line([0xff; ALIGNMENT]); (bytes as usize).div_ceil(ALIGNMENT) + 2 * GUARD];
        let address = block[GUARD..].as_ptr() as Address;
        self.blocks.push(block);
        Ok(address)
    }

    #[expect(unsafe_code, reason = "loads a library that was compiled from the kernel sources")]
    fn load(&mut self, program: &Program) -> Result<(), GpuError> {
        let path = self.build(program)?;
        // SAFETY: its initialisers only fill a table of its own kernels.
        let library = unsafe { Library::new(&path) };
        let wrong =
            |error: libloading::Error| GpuError::Driver { what: "loading kernels".to_owned(), code: error.to_string() };
        self.programs.push(library.map_err(wrong)?);
        Ok(())
    }

    #[expect(unsafe_code, reason = "device addresses are host addresses here")]
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), GpuError> {
        // SAFETY: callers write into what `allocate` gave them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    #[expect(unsafe_code, reason = "device addresses are host addresses here")]
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), GpuError> {
        // SAFETY: callers read from what `allocate` gave them.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn run(&mut self, commands: &[Command]) -> Result<(), GpuError> {
        for command in commands {
            match command {
                Command::Launch(launch) => self.launch(launch)?,
                Command::Product(product) => multiply(product),
            }
            let edges = self.blocks.iter().flat_map(|block| block[..GUARD].iter().chain(&block[block.len() - GUARD..]));
            let touched = edges.flat_map(|line| line.0).any(|byte| byte != 0xff);
            assert!(!touched, "this command writes outside of its memory: {command:?}");
        }
        Ok(())
    }

    fn graph(&mut self, commands: &[Command]) -> Result<Graph, GpuError> {
        self.graphs.push(commands.to_vec());
        Ok(Graph(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: Graph) -> Result<(), GpuError> {
        let commands = std::mem::take(&mut self.graphs[graph.0]);
        let done = self.run(&commands);
        self.graphs[graph.0] = commands;
        done
    }
}

/// Rows of a matrix as f32, turned already.
fn fetch(matrix: Matrix, rows: u64, columns: u64) -> Vec<f32> {
    let element = |row, column| {
        let (row, column) = if matrix.turned { (column, row) } else { (row, column) };
        load(matrix.kind, matrix.address + (row * matrix.stride + column) * matrix.kind.bytes())
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| element(row, column))).collect()
}

#[expect(unsafe_code, reason = "device addresses are host addresses here")]
fn load(kind: Kind, at: Address) -> f32 {
    // SAFETY: products name what `allocate` gave, and are as large as they say.
    unsafe {
        match kind {
            Kind::F32 => (at as *const f32).read_unaligned(),
            Kind::Bf16 => f32::from_bits(u32::from((at as *const u16).read_unaligned()) << 16),
        }
    }
}

#[expect(unsafe_code, reason = "device addresses are host addresses here")]
fn store(kind: Kind, at: Address, value: f32) {
    // SAFETY: as in `load`.
    unsafe {
        match kind {
            Kind::F32 => (at as *mut f32).write_unaligned(value),
            Kind::Bf16 => (at as *mut u16).write_unaligned(rounded(value)),
        }
    }
}

/// To the nearest bf16, ties to even.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn multiply(product: &Product) {
    let Product { m, n, k, .. } = *product;
    let (left, right) = (fetch(product.left, m, k), fetch(product.right, k, n));
    let (n, k, to) = (n as usize, k as usize, product.to);
    let mut sums = vec![0f32; n];
    for (row, left) in left.chunks_exact(k).enumerate() {
        sums.fill(0.0);
        for (&x, right) in left.iter().zip(right.chunks_exact(n)) {
            sums.iter_mut().zip(right).for_each(|(sum, &y)| *sum += x * y);
        }
        for (column, &sum) in sums.iter().enumerate() {
            let offset = (row as u64 * to.stride + column as u64) * to.kind.bytes();
            let before = product.onto.map_or(0.0, |onto| load(to.kind, onto + offset));
            store(to.kind, to.address + offset, before + sum);
        }
    }
}
