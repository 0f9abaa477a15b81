//! Sweeps whose runs a foreign program trains.

use super::*;

const GRID: &str = "schema = 1\n[axes]\nparams = ['10k', '20k']\ntokens = ['1M', '2M']\n";

fn trained_by(trainer: &str) -> Plan {
    planned(&format!("{GRID}[trainer]\n{trainer}")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn all_that_decides_a_result_is_in_the_id_and_nothing_else_changes() {
    let native = planned(GRID).unwrap();
    let base = trained_by("command = ['python3', 'a.py']\nfiles = ['tools/a.py']\n");
    assert!(base.runs.iter().all(|run| !ids(&native).contains(&run.run_id)));
    assert_eq!(ids(&base), ids(&trained_by("files = ['tools/a.py']\ncommand = ['python3', 'a.py']\n")));
    for other in [
        "command = ['python3', 'a.py']\n",
        "command = ['python3', 'a.py', '--fast']\nfiles = ['tools/a.py']\n",
        "command = ['python3', 'a.py']\nfiles = ['other/a.py']\n",
        "command = ['python3', 'a.py']\nfiles = ['tools/a.py']\nversion = '2'\n",
    ] {
        assert!(ids(&trained_by(other)).iter().all(|id| !ids(&base).contains(id)), "{other}");
    }
    for (foreign, native) in base.runs.iter().zip(&native.runs) {
        assert_eq!((&foreign.run.model, &foreign.run.train), (&native.run.model, &native.run.train));
        assert_eq!((foreign.params, foreign.tokens, foreign.flops), (native.params, native.tokens, native.flops));
        let numerics = &foreign.run.numerics;
        assert_eq!((numerics.engine, numerics.version), (EngineKind::Cpu, 0));
    }
}

#[test]
fn a_run_without_a_trainer_says_nothing_of_one() {
    let json = serde_json::to_value(&planned(GRID).unwrap().runs[0].run).unwrap();
    assert_eq!(json.as_object().unwrap().keys().count(), 5, "{json}");
}

#[test]
fn a_trainer_gets_the_slot_and_memory_that_the_file_asks_for_and_no_trunk() {
    let schedule = "[train]\nschedule = 'wsd'\nengine = 'cuda'\n[resources]\nmemory = '3GiB'\n";
    let plan = trained_by(&format!("command = ['torchrun', 'train.py']\n{schedule}"));
    assert!(plan.trunks.is_empty() && plan.runs.iter().all(|run| run.action == Action::Run && run.seconds.is_none()));
    assert!(plan.runs.iter().all(|run| run.run.numerics.engine == EngineKind::Cuda && run.memory_bytes == 3 << 30));
}

#[test]
fn files_of_a_trainer_lie_in_one_folder() {
    for (files, wrong) in [("['a/x.py', 'b/x.py']", "same name"), ("['tools/']", "names no file"), ("[]", "empty")] {
        let text = format!("{GRID}[trainer]\ncommand = ['x']\nfiles = {files}\n");
        let error = parse("x", &text, &[]).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
}
