//! A [`Gpu`] on stand-ins of CUDA's libraries (`standin/README.md`): each test starts itself again in a process whose
//! loader finds them. What is seen is that calls follow the manuals, as they were read; nothing of real hardware.

#[path = "../../standin/built.rs"]
mod built;
mod lab;

use std::fs;
use std::path::PathBuf;

use isoloss_gpu::{Command, Device, Gpu, GpuError, Kind, Launch, Library, Matrix, Memory, Product, Program, cards};
use lab::*;

#[test]
fn cards_are_those_that_are_visible() {
    on_standins("cards_are_those_that_are_visible", &[], &[], || {
        let all = whole();
        let names: Vec<&str> = all.iter().map(|card| card.uuid.as_str()).collect();
        assert_eq!(names, ["GPU-5a5a0000-0000-4000-8000-000000000001", "GPU-5a5a0000-0000-4000-8000-000000000002"]);
        let memory = Memory { free: (8 << 30) - (300 << 20), total: 8 << 30 };
        assert!(all.iter().all(|card| card.capability == 90 && card.memory == memory), "{all:?}");
    });
}

#[test]
fn a_card_is_seen_by_its_uuid_alone() {
    let second = [("CUDA_VISIBLE_DEVICES", "GPU-5a5a0000-0000-4000-8000-000000000002")];
    on_standins("a_card_is_seen_by_its_uuid_alone", &[], &second, || {
        let all = whole();
        assert_eq!((all.len(), all[0].uuid.ends_with('2'), Gpu::count().unwrap()), (1, true, 1));
        let Err(error) = Gpu::open(1, &cache()) else { panic!("there is one") };
        assert!(error.to_string().contains("where 1 are visible (see CUDA_VISIBLE_DEVICES"), "{error}");
    });
}

/// The driver calls it an error (CUDA_ERROR_NO_DEVICE), which it is not: workers hide GPUs from runs on cores.
#[test]
fn no_card_is_seen_where_all_are_hidden() {
    on_standins("no_card_is_seen_where_all_are_hidden", &[], &[("CUDA_VISIBLE_DEVICES", "")], || {
        assert_eq!((whole(), Gpu::count().unwrap()), (Vec::new(), 0));
    });
}

#[test]
fn a_broken_card_is_told_and_the_other_one_is_whole() {
    on_standins("a_broken_card_is_told_and_the_other_one_is_whole", &[], &[("ISOLOSS_STANDIN_BROKEN", "0")], || {
        let [Err(broken), Ok(whole)] = &cards().unwrap()[..] else { panic!("the first one is broken") };
        let words = "GPU 0, stand-in GPU, GPU-5a5a0000-0000-4000-8000-000000000001: cuDevicePrimaryCtxRetain failed: \
                     CUDA_ERROR_UNKNOWN";
        assert_eq!(broken.to_string(), words);
        assert!(whole.uuid.ends_with('2') && whole.memory.free > 0, "{whole:?}");
        Gpu::open(1, &cache()).unwrap();
    });
}

/// Whichever library it belongs to, and before anything else was called.
#[test]
fn a_call_that_fails_is_told_with_its_code() {
    let name = "a_call_that_fails_is_told_with_its_code";
    for (fails, words) in [
        ("cuInit:0:803", "cuInit failed: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("cuInit:0:999", "cuInit failed: CUDA_ERROR_UNKNOWN"),
        ("cuInit:0:100", "0 are visible"),
        ("nvrtcVersion:0:5", "nvrtcVersion failed: NvrtcError(NVRTC_ERROR_INVALID_OPTION)"),
        ("cublasLtCreate:0:1", "cublasLtCreate failed: "),
    ] {
        on_standins(name, &[], &[("ISOLOSS_STANDIN_FAIL", fails), ("ISOLOSS_STANDIN_WORDS", words)], || {
            let opened = Gpu::open(0, &cache()).and_then(|mut gpu| gpu.load(&program()));
            let (error, words) = (opened.unwrap_err().to_string(), std::env::var("ISOLOSS_STANDIN_WORDS").unwrap());
            assert!(error.contains(&words), "{error}");
        });
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
    }
}

#[test]
fn kernels_run_in_order_with_the_arguments_they_were_given() {
    on_standins("kernels_run_in_order_with_the_arguments_they_were_given", &[], &[], || {
        let mut gpu = open();
        assert_eq!(gpu.name(), "stand-in GPU (sm_90)");
        let from = gpu.allocate("numbers", 4 * 300).unwrap();
        let to = gpu.allocate("results", 4 * 300).unwrap();
        let numbers: Vec<f32> = (0..300u16).map(f32::from).collect();
        gpu.write(from, &bytes(&numbers)).unwrap();
        gpu.run(&[scale(to, from, 0.5, 300, 2), scale(from, to, 2.0, 300, -1)]).unwrap();
        let found = read(&mut gpu, from, 300);
        assert!(found.iter().zip(&numbers).all(|(found, number)| *found == number + 3.0), "{found:?}");
        // More dynamic shared memory than a kernel has without asking, beside static one; and less later.
        let many = gpu.allocate("many", 4 * 16_000).unwrap();
        let numbers: Vec<f32> = (0..16_000u16).map(f32::from).collect();
        gpu.write(many, &bytes(&numbers)).unwrap();
        for count in [12_288u16, 16_000, 100] {
            gpu.run(&[on_one_block("turned", 64, 4 * u32::from(count), many, i32::from(count))]).unwrap();
        }
        let missing = Command::Launch(Launch { kernel: "none", grid: [1; 3], block: 32, shared: 0, arguments: vec![] });
        let error = gpu.run(&[missing]).unwrap_err().to_string();
        assert_eq!(error, "no kernel none among those loaded");
        // What was left in place is what came first of all.
        assert_eq!(read(&mut gpu, many, 1).len(), 1);
    });
}

#[test]
fn what_a_block_cannot_have_is_refused_by_name() {
    on_standins("what_a_block_cannot_have_is_refused_by_name", &[], &[], || {
        let mut gpu = open();
        let to = gpu.allocate("numbers", 256).unwrap();
        let error = gpu.run(&[on_one_block("turned", 64, 227 << 10, to, 64)]).unwrap_err().to_string();
        assert!(
            error.starts_with("232448 bytes of shared memory for kernel turned failed: CUDA_ERROR_INVALID"),
            "{error}"
        );
        let error = gpu.run(&[on_one_block("fill", 1056, 0, to, 64)]).unwrap_err().to_string();
        assert_eq!(error, "kernel fill on a grid of 1 x 1 x 1 blocks of 1056 failed: CUDA_ERROR_INVALID_VALUE");
        // Neither leaves anything behind.
        gpu.run(&[on_one_block("fill", 32, 0, to, 64)]).unwrap();
        assert_eq!(read(&mut gpu, to, 64), [1.0; 64]);
    });
}

/// Copies wait as long as they may, so a buffer that is used again too early would show in the numbers.
#[test]
fn many_writes_wait_their_turn_in_few_buffers() {
    on_standins("many_writes_wait_their_turn_in_few_buffers", &[], &[], || {
        let mut gpu = open();
        let from = gpu.allocate("numbers", 4 * 64).unwrap();
        let to: Vec<u64> = (0..40).map(|_| gpu.allocate("results", 4 * 64).unwrap()).collect();
        for (i, &to) in to.iter().enumerate() {
            // Of growing and shrinking length: buffers are replaced on the way.
            let count = 1 + (i * 7) % 64;
            gpu.write(from, &bytes(&vec![i as f32; count])).unwrap();
            gpu.run(&[scale(to, from, 1.0, count as u64, 0)]).unwrap();
        }
        for (i, &to) in to.iter().enumerate() {
            let count = 1 + (i * 7) % 64;
            assert_eq!(read(&mut gpu, to, count), vec![i as f32; count]);
        }
        gpu.write(from, &[]).unwrap();
        gpu.read(from, &mut []).unwrap();
    });
}

#[test]
fn a_graph_does_its_commands_at_each_replay_and_not_before() {
    on_standins("a_graph_does_its_commands_at_each_replay_and_not_before", &[], &[], || {
        let mut gpu = open();
        let at = gpu.allocate("numbers", 4 * 64).unwrap();
        let [left, right, to] = [0; 3].map(|_| gpu.allocate("matrices", 4 * 64).unwrap());
        let eye: Vec<f32> = (0..64).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
        gpu.write(at, &bytes(&[0.0; 64])).unwrap();
        gpu.write(right, &bytes(&eye)).unwrap();
        gpu.write(to, &bytes(&[0.0; 64])).unwrap();
        let side = |address| Matrix::new(address, 8, Kind::F32);
        let product = Product {
            m: 8,
            n: 8,
            k: 8,
            left: side(left),
            right: side(right).turned(),
            to: side(to),
            onto: Some(to),
            exact: true,
        };
        let commands = [scale(at, at, 1.0, 64, 1), scale(left, at, 1.0, 64, 0), Command::Product(product)];
        let graph = gpu.graph(&commands).unwrap();
        assert_eq!(read(&mut gpu, at, 64), [0.0; 64]);
        for sum in [1.0, 3.0, 6.0] {
            gpu.replay(graph).unwrap();
            assert_eq!(read(&mut gpu, to, 64), [sum; 64]);
        }
        // A command that cannot be captured leaves the queue usable.
        let wrong = on_one_block("fill", 1056, 0, to, 64);
        assert!(gpu.graph(&[commands[0].clone(), wrong]).is_err());
        let again = gpu.graph(&commands).unwrap();
        gpu.replay(again).unwrap();
        assert_eq!(read(&mut gpu, to, 64), [10.0; 64]);
    });
}

/// Every kind of product, with rows that lie on little and operands that are read turned.
#[test]
fn products_are_those_of_row_major_matrices() {
    on_standins("products_are_those_of_row_major_matrices", &[], &[], || {
        let mut gpu = open();
        let (m, n, k, stride) = (3usize, 5usize, 7usize, 9usize);
        for (kind, to_kind, turned) in [
            (Kind::F32, Kind::F32, [false, false]),
            (Kind::F32, Kind::F32, [true, true]),
            (Kind::Bf16, Kind::F32, [false, true]),
            (Kind::Bf16, Kind::Bf16, [true, false]),
        ] {
            let small = |row: usize, column: usize| ((row * 3 + column * 5) % 7) as f32 - 3.0;
            let element = |kind: Kind, value: f32| match kind {
                Kind::F32 => value.to_le_bytes().to_vec(),
                Kind::Bf16 => value.to_le_bytes()[2..].to_vec(),
            };
            let mut side = |rows: usize, columns: usize, turned: bool| {
                let (rows, columns) = if turned { (columns, rows) } else { (rows, columns) };
                let at = gpu.allocate("a matrix", (rows * stride) as u64 * kind.bytes()).unwrap();
                let all = (0..rows).flat_map(|row| (0..stride).map(move |column| (row, column)));
                let value = |(row, column)| if column < columns { small(row, column) } else { f32::NAN };
                let bytes: Vec<u8> = all.flat_map(|place| element(kind, value(place))).collect();
                gpu.write(at, &bytes).unwrap();
                let matrix = Matrix::new(at, stride, kind);
                if turned { matrix.turned() } else { matrix }
            };
            let (left, right) = (side(m, k, turned[0]), side(k, n, turned[1]));
            let at = gpu.allocate("a result", (m * stride) as u64 * to_kind.bytes()).unwrap();
            let to = Matrix::new(at, stride, to_kind);
            let product = |onto| {
                let (m, n, k) = (m as u64, n as u64, k as u64);
                Command::Product(Product { m, n, k, left, right, to, onto, exact: false })
            };
            gpu.run(&[product(None), product(Some(at))]).unwrap();
            let mut found = vec![0; m * stride * to_kind.bytes() as usize];
            gpu.read(at, &mut found).unwrap();
            let at = |row, column, turned| if turned { small(column, row) } else { small(row, column) };
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let sum: f32 = (0..k).map(|i| at(row, i, turned[0]) * at(i, column, turned[1])).sum();
                let size = to_kind.bytes() as usize;
                let place = (row * stride + column) * size;
                assert_eq!(found[place..place + size], element(to_kind, 2.0 * sum), "{kind:?} {turned:?}");
            }
        }
    });
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let memory = [("ISOLOSS_STANDIN_MEMORY", "419430400")]; // 400 MiB, of which a context takes 300
    on_standins("memory_is_bounded_and_comes_back", &[], &memory, || {
        let before = whole()[0].memory;
        assert_eq!(before, Memory { free: 100 << 20, total: 400 << 20 });
        {
            let mut gpu = open();
            let free = gpu.memory().unwrap().free;
            assert_eq!(free, (100 - 32) << 20, "the products' workspace");
            let error = gpu.allocate("weights", free + 1).unwrap_err();
            let wanted = format!("out of GPU memory: weights wants {} bytes more, {free} are free", free + 1);
            assert_eq!(error.to_string(), wanted);
            gpu.allocate("weights", free).unwrap();
            assert_eq!(gpu.memory().unwrap().free, 0);
        }
        assert_eq!(whole()[0].memory, before);
        // As it is where another process has the rest: an error, and nothing is left.
        drop((open(), Gpu::open(1, &cache()).unwrap()));
    });
}

#[test]
fn too_little_memory_to_open_is_said() {
    let memory = [("ISOLOSS_STANDIN_MEMORY", "319430400")];
    on_standins("too_little_memory_to_open_is_said", &[], &memory, || {
        let Err(error) = Gpu::open(0, &cache()) else { panic!("it cannot fit") };
        assert!(matches!(error, GpuError::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("the products' workspace"), "{error}");
    });
}

/// Of the driver, the compiler and the products, each function in turn that is called late: told when a GPU is opened.
#[test]
fn a_missing_function_is_an_error_and_no_panic() {
    let name = "a_missing_function_is_an_error_and_no_panic";
    for function in ["cuGraphUpload", "nvrtcGetCUBIN", "cublasLtMatmul"] {
        on_standins(name, &[function], &[("ISOLOSS_STANDIN_LACKS", function)], || {
            let lacks = std::env::var("ISOLOSS_STANDIN_LACKS").unwrap();
            let Err(error) = Gpu::open(0, &cache()) else { panic!("{lacks} is missing") };
            assert!(matches!(error, GpuError::Missing { .. }));
            assert!(
                error.to_string().ends_with(&format!("the one found lacks {lacks}; install a newer one")),
                "{error}"
            );
            let wrong: Vec<String> = isoloss_gpu::find().into_iter().filter_map(|found| found.wrong).collect();
            assert_eq!(wrong, [format!("the one found lacks {lacks}; install a newer one")]);
        });
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
    }
}

#[test]
fn another_generation_gets_machine_code_or_portable_code_of_its_own() {
    let name = "another_generation_gets_machine_code_or_portable_code_of_its_own";
    // 8.0 has machine code; 10.1 is newer than the compiler, so the driver finishes what it gets; 7.0 is too old.
    for capability in ["80", "101", "70"] {
        on_standins(name, &[], &[("ISOLOSS_STANDIN_CAPABILITY", capability)], || {
            let too_old = cards().unwrap().into_iter().find_map(Result::err);
            let mut gpu = match (Gpu::open(0, &cache()), too_old) {
                (Ok(gpu), None) => gpu,
                (Err(error), Some(card)) => {
                    assert_eq!(error.to_string(), "compute capability 7.0 is too old, 8.0 or newer is needed");
                    let name = "GPU 0, stand-in GPU, GPU-5a5a0000-0000-4000-8000-000000000001";
                    assert_eq!(card.to_string(), format!("{name}: {error}"));
                    return;
                }
                (opened, card) => panic!("{:?} and {card:?}", opened.err()),
            };
            gpu.load(&program()).unwrap();
            let to = gpu.allocate("numbers", 256).unwrap();
            gpu.run(&[on_one_block("fill", 32, 0, to, 64)]).unwrap();
            assert_eq!(read(&mut gpu, to, 64), [1.0; 64]);
        });
        if std::env::var_os(INSIDE).is_some() {
            return;
        }
    }
}

#[test]
fn kernels_that_were_damaged_on_disk_are_compiled_again() {
    on_standins("kernels_that_were_damaged_on_disk_are_compiled_again", &[], &[], || {
        let folder = cache().join(format!("damaged-{}", std::process::id()));
        let load = || Gpu::open(0, &folder).unwrap().load(&program());
        load().unwrap();
        let files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let whole = fs::read(&files[0]).unwrap();
        for damaged in [&[][..], &whole[..64], &whole[..whole.len() / 2], b"\x7fELF"] {
            fs::write(&files[0], damaged).unwrap();
            load().unwrap();
            assert_eq!(fs::read(&files[0]).unwrap().len(), whole.len());
        }
        fs::remove_dir_all(&folder).unwrap();
    });
}

/// A kernel that breaks, and a GPU that falls off: every later call says so, and dropping it does not hang or panic.
#[test]
fn a_broken_gpu_is_told_by_every_call() {
    let name = "a_broken_gpu_is_told_by_every_call";
    on_standins(name, &[], &[("ISOLOSS_STANDIN_FAIL", "cuLaunchKernel:1:719")], || {
        let mut gpu = open();
        let to = gpu.allocate("numbers", 256).unwrap();
        gpu.run(&[on_one_block("fill", 32, 0, to, 64)]).unwrap();
        let error = gpu.run(&[on_one_block("fill", 32, 0, to, 64)]).unwrap_err().to_string();
        assert!(error.starts_with("kernel fill ") && error.ends_with("CUDA_ERROR_LAUNCH_FAILED"), "{error}");
        let error = gpu.read(to, &mut [0; 4]).unwrap_err().to_string();
        assert!(error.ends_with("CUDA_ERROR_LAUNCH_FAILED"), "{error}");
        assert!(gpu.allocate("more", 4).is_err() && gpu.graph(&[]).is_err());
    });
}

#[test]
fn a_write_outside_of_the_memory_is_found_when_somebody_waits() {
    on_standins("a_write_outside_of_the_memory_is_found_when_somebody_waits", &[], &[], || {
        let mut gpu = open();
        let to = gpu.allocate("numbers", 256).unwrap();
        gpu.run(&[on_one_block("fill", 32, 0, to, 65)]).unwrap();
        let error = gpu.read(to, &mut [0; 4]).unwrap_err().to_string();
        assert!(error.ends_with("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");
    });
}

#[test]
fn a_kernel_that_does_not_compile_is_told_with_the_compiler_s_words() {
    on_standins("a_kernel_that_does_not_compile_is_told_with_the_compiler_s_words", &[], &[], || {
        let mut gpu = open();
        let wrong = Program {
            files: vec![("wrong.cu", "extern \"C\" __global__ void x() { y(); }\nEXPORT(x)")],
            defines: vec![],
        };
        let error = gpu.load(&wrong).unwrap_err().to_string();
        assert!(error.starts_with("kernels for sm_90 do not compile:") && error.contains("wrong.cu:1"), "{error}");
        assert!(isoloss_gpu::find().iter().all(|found| found.path.is_some()), "{:?}", Library::ALL);
    });
}
