use super::*;

#[test]
fn guesses_headers_and_derives_tokens_from_flops() {
    let text = "N,C,loss\n1e6,6e14,3.0\n1e6,,3.1\n2e6,x,3.1\n";
    let set = read_csv(text.as_bytes(), &Columns::default()).unwrap();
    assert_eq!(set.rows().len(), 1);
    assert!((set.rows()[0].tokens - 1e8).abs() < 1e-3);
    let reasons: Vec<_> = set.excluded().iter().map(|e| e.reason.as_str()).collect();
    assert_eq!(reasons, ["tokens are missing", "expected a number, got \"x\""]);
}

#[test]
fn rows_left_out_are_told_by_line_and_reason() {
    let text = "id,N,D,loss\na,1e6,1e8,3.0\nb,1e6,1e8,-1\nc,2e6,1e8\n,2e6,1e8,3.0,9\nd,1e6,2e8,2.9,,\n";
    let set = read_csv(text.as_bytes(), &Columns::default()).unwrap();
    assert_eq!(set.rows().len(), 2);
    let told: Vec<_> = set.excluded().iter().map(|e| (e.id.as_str(), e.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("b", "line 3: expected a positive finite loss, got -1"),
            ("c", "line 4: expected 4 cells as in the header, got 3"),
            ("line 5", "expected 4 cells as in the header, got 5"),
        ]
    );
}

#[test]
fn rows_without_a_loss_are_the_pool_and_cost_what_they_say() {
    let text = "N,D,loss,cost\n1e6,1e8,3.0,1\n2e6,1e8,,5\n2e6,2e8,,\n3e6,1e8,,-1\n3e6,1e8,x,1\n";
    let Pool { known, open, spent, .. } = read_pool(text.as_bytes(), &Columns::default()).unwrap();
    assert_eq!((known.rows().len(), spent), (1, 1.0));
    let costs: Vec<f64> = open.iter().map(|one| one.cost).collect();
    assert_eq!(costs, [5.0, 6.0 * 2e6 * 2e8]);
    let told: Vec<_> = known.excluded().iter().map(|e| e.reason.as_str()).collect();
    assert_eq!(told, ["expected a positive finite cost, got -1", "expected a number, got \"x\""]);
}

#[test]
fn a_diverged_run_is_no_observation_but_was_tried() {
    let text = "state,N,D,loss\nfinished,1e6,1e8,3.0\ndiverged,1e6,1e8,\ndiverged,-1,1e8,\npending,1e6,1e8,\n";
    let set = read_csv(text.as_bytes(), &Columns::default()).unwrap();
    assert_eq!((set.rows().len(), set.diverged().len()), (1, 1));
    let told: Vec<_> = set.excluded().iter().map(|e| (e.id.as_str(), e.reason.as_str())).collect();
    let flaw = "expected a positive finite params, got -1";
    assert_eq!(told, [("line 3", "diverged"), ("line 4", flaw), ("line 5", "loss is missing")]);
}

#[test]
fn a_mapping_wins_and_a_wrong_one_is_named() {
    let text = "N,D,loss,loss_c4\n1e6,1e8,9.0,3.0\n";
    let columns: Columns = "loss=loss_c4".parse().unwrap();
    assert_eq!(read_csv(text.as_bytes(), &columns).unwrap().rows()[0].loss, 3.0);
    let columns: Columns = "loss=nll".parse().unwrap();
    let error = read_csv(text.as_bytes(), &columns).unwrap_err().to_string();
    assert_eq!(error, "column \"nll\" is not in the header: N, D, loss, loss_c4");
    let columns: Columns = "loss=loss_c4,tokens=130B".parse().unwrap();
    assert_eq!(read_csv("N,loss_c4\n1e6,3.0\n".as_bytes(), &columns).unwrap().rows()[0].tokens, 130e9);
    assert!("size=N".parse::<Columns>().is_err());
    assert!(read_csv("a,b\n1,2\n".as_bytes(), &Columns::default()).is_err());
}

#[test]
fn what_a_law_does_not_read_needs_no_column_and_what_it_reads_is_named() {
    let read = |text: &str, law: &str| read_csv(text.as_bytes(), &Columns::default().for_law(law.parse().unwrap()));
    let error = |text: &str, law: &str| read(text, law).unwrap_err().to_string();
    let sized = "N,experts,loss\n1e6,8,3.0\n";
    for law in ["power-params", "clark", "separable", "joint-moe-size"] {
        let set = read(sized, law).unwrap();
        assert_eq!((set.rows()[0].params, set.rows()[0].tokens), (1e6, Observation::UNSAID), "{law}");
    }
    let asked = "no column for tokens, which the law joint-moe reads; say which with tokens=COLUMN; the header is N, experts, loss";
    assert_eq!(error(sized, "joint-moe"), asked);
    assert!(error(sized, "auto").starts_with("no column for tokens; say which"));
    let set = read("D,loss\n1e9,3.0\n", "power-tokens").unwrap();
    assert_eq!((set.rows()[0].params, set.convention()), (Observation::UNSAID, "nothing, the table says no size"));
    assert!(error("D,loss\n1e9,3.0\n", "power-params").contains("params, which the law power-params reads"));
    let set = read("C,loss\n6e15,3.0\n", "broken-1").unwrap();
    assert_eq!(set.rows()[0].flops, 6e15);
    assert!(error(sized, "broken-1").starts_with("no column for flops"));
    // A law of total params takes them for the size where the table has no other.
    let set = read("N_total,D,k,experts,loss\n8e6,1e8,1,8,3.0\n", "sparsity").unwrap();
    assert_eq!((set.rows()[0].params, set.rows()[0].params_total), (8e6, 8e6));
    // A hole in a column is none the less a hole.
    let holes = read("N,D,experts,loss\n1e6,,8,3.0\n2e6,1e8,8,2.9\n", "clark").unwrap();
    assert_eq!((holes.rows().len(), holes.excluded()[0].reason.as_str()), (1, "tokens are missing"));
}
