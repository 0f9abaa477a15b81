use super::*;

const CONTEXT: Exit = Exit::Code(EXIT_CONTEXT);
const DEVICE: Exit = Exit::Code(EXIT_DEVICE);

fn shared(is_foreign: bool) -> Mps {
    let state = State {
        nowhere: Some("/none".into()),
        daemon: Some(vec![(PIPES, "/pipe".into())]),
        is_foreign,
        ..State::default()
    };
    Mps(Arc::new(Mutex::new(state)))
}

fn run(byte: u8) -> RunId {
    format!("{byte:02x}").repeat(32).parse().unwrap()
}

fn told(seat: &Seat) -> Vec<String> {
    seat.environment().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect()
}

#[test]
fn a_client_is_told_of_the_daemon_and_of_its_memory() {
    let mps = shared(false);
    let seat = mps.place(Some("GPU-1"), run(1), Some((700 << 20) + 1));
    assert_eq!(told(&seat), ["CUDA_MPS_PIPE_DIRECTORY=/pipe", "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=701M"]);
    assert!(seat.is_client());
    assert_eq!(told(&mps.place(None, run(2), None)), [""; 0], "a core has nothing to do with it");
    let both = mps.place(Some("GPU-1,GPU-2"), run(3), Some(1));
    assert_eq!(told(&both)[1], "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1M,1=1M");
    let bare = Mps::default().place(Some("GPU-1"), run(1), Some(1));
    assert!(told(&bare).is_empty() && !bare.is_client(), "without MPS nothing changes");
}

#[tokio::test(start_paused = true)]
async fn who_was_in_company_is_tried_again_outside_and_then_judged() {
    let mps = shared(false);
    let (culprit, victim) = (mps.place(Some("GPU-1"), run(1), None), mps.place(Some("GPU-1"), run(2), None));
    let elsewhere = mps.place(Some("GPU-2"), run(3), None);
    assert_eq!(elsewhere.judge(CONTEXT, false), Verdict::Own, "nobody else is on its GPU");
    assert_eq!(culprit.judge(CONTEXT, false), Verdict::Unclear);
    drop(culprit);
    tokio::time::advance(COMPANY).await;
    assert_eq!(victim.judge(CONTEXT, false), Verdict::Unclear, "it hears of it later");
    drop(victim);
    for byte in [1, 2] {
        let again = mps.place(Some("GPU-1"), run(byte), Some(1));
        assert_eq!(told(&again), ["CUDA_MPS_PIPE_DIRECTORY=/none"]);
        assert_eq!(again.judge(CONTEXT, false), Verdict::Own, "alone it is its own fault");
    }
    tokio::time::advance(COMPANY + Duration::from_secs(1)).await;
    let late = mps.place(Some("GPU-1"), run(4), None);
    assert_eq!(late.judge(CONTEXT, false), Verdict::Own, "the others are long gone");
}

#[test]
fn only_a_broken_context_is_forgiven() {
    let mps = shared(true);
    let seat = mps.place(Some("GPU-1"), run(1), None);
    assert_eq!(seat.judge(CONTEXT, true), Verdict::Own, "it told how it ended");
    assert_eq!(seat.judge(Exit::Code(75), true), Verdict::Own);
    assert_eq!(seat.judge(Exit::Signal(9), false), Verdict::Own);
    assert_eq!(seat.judge(CONTEXT, false), Verdict::Unclear, "others' processes may be on a GPU with a foreign daemon");
    assert_eq!(mps.place(None, run(2), None).judge(DEVICE, false), Verdict::Own, "a core is no GPU");
}

#[test]
fn a_gpu_that_takes_no_process_outside_judges_inside() {
    let mps = shared(true);
    assert_eq!(mps.place(Some("GPU-1"), run(1), None).judge(CONTEXT, false), Verdict::Unclear);
    let outside = mps.place(Some("GPU-1"), run(1), None);
    assert!(!outside.is_client());
    assert_eq!(outside.judge(DEVICE, false), Verdict::Service);
    let inside = mps.place(Some("GPU-1"), run(1), None);
    assert!(inside.is_client());
    assert_eq!(inside.judge(CONTEXT, false), Verdict::Own, "once is forgiven, not twice");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_on_refusing_is_given_up() {
    let mps = shared(false);
    let refuse = || mps.place(Some("GPU-1"), run(1), None).judge(DEVICE, false);
    for _ in 0..2 * FAILURES {
        assert_eq!(refuse(), Verdict::Service);
    }
    assert!(mps.place(Some("GPU-1"), run(1), None).is_client(), "it may be starting anew");
    assert_eq!(mps.place(Some("GPU-1"), run(2), None).judge(Exit::Code(0), false), Verdict::Own);
    tokio::time::advance(FAILING).await;
    refuse();
    assert!(mps.place(Some("GPU-1"), run(1), None).is_client(), "it worked meanwhile");
    tokio::time::advance(FAILING).await;
    for _ in 1..FAILURES {
        refuse();
    }
    assert_eq!(told(&mps.place(Some("GPU-1"), run(1), None)), ["CUDA_MPS_PIPE_DIRECTORY=/none"]);
}

#[test]
fn a_gpu_of_one_slot_is_not_shared() {
    let slots = |runs| crate::config::gpu_slots("GPU-1", 7, runs);
    let config = |slots| Config::new("http://x", "w", "/tmp".into(), slots, "isoloss".into());
    assert!(shared_gpus(&config(slots(1))).is_empty());
    assert_eq!(shared_gpus(&config(slots(4))), ["GPU-1"]);
}
