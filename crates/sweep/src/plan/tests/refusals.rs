//! Refusals: one clear message each, with the line to blame.

use super::*;

fn refused(body: &str) -> PlanError {
    let plan = planned(&format!(
        "schema = 1
{body}"
    ));
    plan.map(|plan| plan.runs.len()).expect_err(body)
}

#[test]
fn top_k_over_experts() {
    let error = refused(
        "[axes]\nparams = ['10k']\ntokens = ['1M']\n[[arm]]\nname = 'm'\nfamily = 'moe'\nexperts = 4\ntop_k = 8\n",
    );
    assert_eq!((error.refusal, error.exit_code()), (Refusal::Experts, 2));
    insta::assert_snapshot!(error);
}

#[test]
fn over_budget() {
    let error = refused("[budget]\nflops = 1e9\n[axes]\nparams = ['10k']\ntokens = ['1M']\n");
    assert_eq!((error.refusal, error.exit_code()), (Refusal::Budget, 6));
    insta::assert_snapshot!(error);
}

#[test]
fn each_refusal_has_its_kind() {
    let axes = "[axes]\nparams = ['10k']\ntokens = ['1M']\n";
    for (body, refusal, line) in [
        (format!("{axes}[[exclude]]\nwhen = 'params > 1'\n"), Refusal::Grid, 6),
        (
            format!("{axes}seed = {{ linear = [1, 9000], n = 9000 }}\nbatch = {{ linear = [1, 90], n = 90 }}\n"),
            Refusal::Grid,
            6,
        ),
        ("[axes]\nparams = [100]\ntokens = ['1M']\n".to_owned(), Refusal::Shape, 3),
        ("[axes]\nparams = ['10k']\n".to_owned(), Refusal::Training, 1),
        ("[axes]\nparams = ['10k']\ntokens = [1]\nflops = [1e9]\n".to_owned(), Refusal::Training, 5),
        (format!("{axes}[model]\nfamily = 'moe'\n"), Refusal::Experts, 6),
        (format!("{axes}[model]\nexperts = 512\n"), Refusal::Experts, 6),
        (format!("{axes}[train]\nengine = 'cuda'\n"), Refusal::Capability, 6),
        (format!("{axes}[trainer]\ncommand = ['x']\n[train]\nengine = 'reference'\n"), Refusal::Capability, 8),
        (format!("{axes}[corpus]\nsource = 'files'\n"), Refusal::Corpus, 6),
        (format!("{axes}[corpus]\ntokens_unique = '1T'\n"), Refusal::Corpus, 6),
        (format!("{axes}[train]\nschedule = 'wsd'\nreference_tokens = '100M'\n"), Refusal::Training, 4),
        (format!("{axes}[derive]\nbatch = \"arm\"\n"), Refusal::Expression, 6),
        (format!("{axes}[derive]\nbatch = \"0 - params\"\n"), Refusal::Expression, 6),
        (format!("{axes}[derive]\nwidth = \"params_total\"\n"), Refusal::Expression, 6),
    ] {
        let error = refused(&body);
        assert_eq!(error.refusal, refusal, "{error}");
        assert_eq!(error.diagnostic.line, line, "{error}");
    }
}
