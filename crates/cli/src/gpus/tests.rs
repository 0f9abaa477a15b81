use super::*;

fn found(path: Option<&str>) -> Vec<Found> {
    Library::ALL.map(|library| Found { library, path: path.map(Into::into), wrong: None }).to_vec()
}

fn card() -> Card {
    let memory = isoloss_train::cuda::Memory { free: 1 << 30, total: 2 << 30 };
    Card { ordinal: 0, uuid: "GPU-1".to_owned(), name: "H200".to_owned(), capability: 90, memory }
}

fn fixes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|finding| !finding.fix.is_empty()).map(|finding| finding.found.as_str()).collect()
}

#[test]
fn only_a_machine_with_a_gpu_lacks_libraries() {
    let none = told(None, &found(None));
    assert!(fixes(&none).is_empty() && none[0].found.starts_with("none found"), "{none:?}");
    let bare = told(Some(Ok(vec![Ok(card())])), &found(None));
    assert!(bare[0].found.starts_with("H200, compute capability 9.0, 1"), "{bare:?}");
    assert_eq!(fixes(&bare).len(), 3, "{bare:?}");
    assert!(fixes(&told(Some(Ok(Vec::new())), &found(Some("/x")))).is_empty());
    let broken = GpuError::Driver { what: "cuInit".to_owned(), code: "803".to_owned() };
    let broken = told(Some(Err(broken)), &found(Some("/x")));
    assert_eq!(fixes(&broken), ["the NVIDIA driver does not work: cuInit failed: 803"]);
}

#[test]
fn a_gpu_that_cannot_be_used_is_named_and_takes_no_other_with_it() {
    let unusable = |error| {
        let known = |text: &str| Some(text.to_owned());
        Unusable { ordinal: 0, name: known("T4"), uuid: known("GPU-2"), error }
    };
    let broken = || unusable(GpuError::Driver { what: "cuX".to_owned(), code: "999".to_owned() });
    let old = || unusable(GpuError::TooOld { capability: 75 });
    let cases: [(&dyn Fn() -> Unusable, &str, &str); 2] = [
        (&broken, "GPU 0, T4, GPU-2: cuX failed: 999", "see nvidia-smi"),
        (&old, "GPU 0, T4, GPU-2: compute capability 7.5 is too old", "compute capability 8.0 or newer"),
    ];
    for (unusable, words, cure) in cases {
        let both = told(Some(Ok(vec![Err(unusable()), Ok(card())])), &found(Some("/x")));
        assert!(fixes(&both).len() == 1 && both[0].found.starts_with(words), "{both:?}");
        assert!(both[0].fix.contains(cure) && both[0].fix.contains("`CUDA_VISIBLE_DEVICES=GPU-1`"), "{both:?}");
        assert!(both[1].found.starts_with("H200") && both[1].fix.is_empty(), "{both:?}");
        let (left, warnings) = parted(vec![Err(unusable()), Ok(card())]).unwrap();
        assert_eq!((left, warnings.len()), (vec![card()], 1));
        assert!(warnings[0].contains(words) && warnings[0].contains("the others are used"), "{warnings:?}");
        let none = parted(vec![Err(unusable())]).unwrap_err();
        assert!(none.contains(words), "{none}");
        // Libraries matter to a GPU that can be used.
        assert_eq!(fixes(&told(Some(Ok(vec![Err(unusable())])), &found(None))).len(), 1);
    }
    assert!(parted(Vec::new()).unwrap_err().contains("shows no GPU"));
}

#[test]
fn a_library_that_is_there_and_of_no_use_is_told_on_any_machine() {
    let mut all = found(None);
    all[1].wrong = Some("libnvrtc.so.13 does not load: /x: file too short".to_owned());
    all[2].path = Some("/y".into());
    all[2].wrong = Some("the one found lacks cublasLtMatmul".to_owned());
    let told = told(None, &all);
    assert_eq!(
        fixes(&told),
        ["NVRTC: libnvrtc.so.13 does not load: /x: file too short", "cuBLASLt: /y: the one found lacks cublasLtMatmul"]
    );
}

#[test]
fn gpus_are_named_once_with_their_memory() {
    let slots = |asked: &[&str], together, runs| {
        let gpus = asked.iter().map(|text| named(text)).collect::<Result<Vec<_>, _>>()?;
        grouped(&gpus, together, runs)
    };
    let both = slots(&["GPU-1=80GiB", "GPU-2=1GiB"], 1, 2).unwrap();
    assert_eq!(
        both.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(),
        ["GPU-1:0", "GPU-1:1", "GPU-2:0", "GPU-2:1"]
    );
    assert_eq!(both[0].memory_bytes, 80 << 30);
    let twice = ["GPU-1=1GiB", "GPU-1=2GiB"];
    for wrong in [&["GPU-1"][..], &["GPU-1=much"], &["GPU-1=80"], &["=80GiB"], &["GPU-1,GPU-2=1GiB"], &twice] {
        assert!(slots(wrong, 1, 1).is_err(), "{wrong:?}");
    }
    // A group is one device that has the memory of its smallest.
    let pair = slots(&["GPU-1=80GiB", "GPU-2=1GiB"], 2, 1).unwrap();
    assert_eq!((pair.len(), pair[0].gpu.as_deref(), pair[0].memory_bytes), (1, Some("GPU-1,GPU-2"), 1 << 30));
    assert!(slots(&["GPU-1=1GiB"], 2, 1).is_err());
}

#[test]
fn gpus_that_are_named_are_held_to_those_that_the_driver_shows() {
    let card = |uuid: &str| Card {
        ordinal: 0,
        uuid: uuid.to_owned(),
        name: "H200".to_owned(),
        capability: 90,
        memory: isoloss_train::cuda::Memory { free: 7 << 30, total: 8 << 30 },
    };
    let cards = [card("GPU-11aa"), card("GPU-11bb")];
    let held = |name: &str, gib: u64| held_to((name.to_owned(), gib << 30), &cards, &[]);
    assert_eq!(held("GPU-11aa", 8).unwrap(), ("GPU-11aa".to_owned(), 8 << 30));
    assert_eq!(held("GPU-11b", 8).unwrap().0, "GPU-11bb");
    assert_eq!(held("MIG-5", 900).unwrap().0, "MIG-5");
    for (name, gib, words) in [
        ("GPU-11", 8, "--gpu: GPU-11 may be GPU-11aa or GPU-11bb"),
        ("GPU-22", 8, "no GPU-22 here; the driver shows GPU-11aa, GPU-11bb"),
        ("GPU-11aa", 900, "--gpu: 900 GiB of GPU-11aa are offered, and it has 8.00 GiB"),
    ] {
        let error = held(name, gib).unwrap_err().message;
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn gpus_of_slots_are_named_as_the_driver_calls_them() {
    let card = |uuid: &str, name: &str| Card { uuid: uuid.to_owned(), name: name.to_owned(), ..card() };
    let cards = [card("GPU-1", "H200"), card("GPU-2", "H200"), card("GPU-3", "A100")];
    let offer =
        |gpus: &[&str]| Offer::of(gpus.iter().flat_map(|gpu| gpu_slots(gpu, 1 << 30, 2)).collect(), &cards).names;
    let named = |gpu: &str, name: &str| (gpu.to_owned(), name.to_owned());
    assert_eq!(
        offer(&["GPU-1", "GPU-1,GPU-2", "GPU-1,GPU-3", "MIG-1", "GPU-1,MIG-1"]),
        [named("GPU-1", "H200"), named("GPU-1,GPU-2", "2 x H200"), named("GPU-1,GPU-3", "H200 + A100")].into()
    );
}
