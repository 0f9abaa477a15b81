use super::*;

fn wrong(text: &str) -> SpecError {
    parse("sweep.toml", text, &[]).map(|spec| spec.name).unwrap_err()
}

/// Each wrong file, shown as a person sees it.
#[test]
fn wrong_files_are_shown_with_line_and_column() {
    let cases = [
        ("unknown key", "schema = 1\n[train]\nlerning_rate = 1e-3\n"),
        ("unknown table", "schema = 1\n[modle]\n"),
        ("unknown axis", "schema = 1\n[axes]\nparms = [1]\n"),
        ("wrong type", "schema = 1\n[model]\ncontext = true\n"),
        ("wrong word", "schema = 1\n[model]\nfamily = \"moee\"\n"),
        ("negative count", "schema = 1\n[axes]\nparams = [\"10k\", -5]\n"),
        ("empty grid", "schema = 1\n[axes]\nparams = []\n"),
        ("duplicate arm", "schema = 1\n[[arm]]\nname = \"a\"\n[[arm]]\nname = \"a\"\n"),
        ("syntax error", "schema = 1\n[axes\nparams = [1]\n"),
        ("no schema", "name = \"x\"\n"),
        ("other schema", "schema = 2\n"),
        ("expression", "schema = 1\n[derive]\ntokens = \"20 * parms\"\n"),
        ("duration", "schema = 1\n[budget]\nwall = \"10 parsecs\"\n"),
        ("holdout", "schema = 1\n[fit]\nholdout = \"the big ones\"\n"),
        ("axis and derived", "schema = 1\n[axes]\ntokens = [1]\n[derive]\ntokens = \"1\"\n"),
        ("zip of unequal lengths", "schema = 1\n[[zip]]\nwidth = [32, 64]\nlayers = [1]\n"),
        ("tokenizer", "schema = 1\n[corpus]\ntokenizer = { bpe = { vocab = 12 } }\n"),
    ];
    let shown: Vec<String> = cases.iter().map(|(name, text)| format!("# {name}\n{}\n", wrong(text))).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn overrides_are_laid_over_the_file_and_blamed_by_name() {
    let text = "schema = 1\n[corpus]\npaths = ['a']\n[train]\nschedule = { cosine = {} }\n";
    let set = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        parse("sweep.toml", text, &overrides)
    };
    let spec = set(&["corpus.paths=[\"b\", \"c\"]", "train.schedule={ wsd = { decay = 0.1 } }", "seed=7"]).unwrap();
    assert_eq!(spec.settings["paths"].value, Value::Texts(vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!(spec.settings["schedule"].value, Value::Schedule(ScheduleSpec::Wsd { decay: 0.1 }));
    assert_eq!(spec.settings["seed"].value, Value::Count(7));
    insta::assert_snapshot!(set(&["corpus.path=['b']"]).unwrap_err());
    insta::assert_snapshot!(set(&["name=x"]).unwrap_err());
}

#[test]
fn ranges_hit_their_ends_and_whole_values_are_distinct() {
    let spec = parse(
        "x",
        "schema = 1\n[axes]\nparams = { log = [10, 1000], n = 3 }\ntop_k = { linear = [1, 2], n = 5 }\n",
        &[],
    );
    let axes = spec.unwrap().axes;
    let values = |axis: usize| axes[axis].rows.iter().map(|row| row[0].value.clone()).collect::<Vec<_>>();
    assert_eq!(values(0), [10, 100, 1000].map(Value::Count));
    assert_eq!(values(1), [1, 2].map(Value::Count));
}

#[test]
fn every_table_of_the_language_is_read() {
    let spec = parse(
        "x",
        r#"
schema = 1
name = "all"
[replicates]
seeds = 2
where = "largest"
[budget]
flops = 1e15
gpu_hours = 0.0
wall = "20min"
[retry]
failures = 3
[fit]
laws = ["additive"]
holdout = "largest 10% by tokens"
target = { flops = 1e16 }
[trainer]
command = ["torchrun", "train.py"]
[resources]
threads = 2
memory = "80GiB"
priority = 60
"#,
        &[],
    )
    .unwrap();
    assert_eq!(spec.replicates, Replicates { seeds: 2, everywhere: false });
    assert_eq!(spec.budget.wall_seconds.map(|(seconds, _)| seconds), Some(1200.0));
    assert_eq!(spec.retry, Retry { failures: 3, preemptions: 100 });
    assert_eq!(spec.fit.holdout, Holdout { fraction: 0.1, by: Measure::Tokens });
    assert_eq!(spec.resources.memory_bytes, Some(80 << 30));
    assert_eq!(spec.resources.priority, Some(60));
    let beyond = parse("sweep.toml", "schema = 1\n[resources]\npriority = 101\n", &[]).unwrap_err();
    assert!(beyond.to_string().contains("expected 0 to 100"), "{beyond}");
    assert!(spec.trainer.is_some());
}

#[test]
fn laws_are_named_alone_or_in_a_list_of_one() {
    let laws =
        |text: &str| parse("x", &format!("schema = 1\nname = 'x'\n[fit]\nlaws = {text}\n"), &[]).map(|s| s.fit.laws);
    assert_eq!(laws("'auto'").unwrap(), Vec::<String>::new());
    assert_eq!(laws("'tied'").unwrap(), ["tied"]);
    assert_eq!(laws("['qlaw']").unwrap(), ["qlaw"]);
    for wrong in ["'linear'", "['linear']", "['tied', 'qlaw']", "[]", "['auto']"] {
        assert!(laws(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_number_is_shown_as_it_was_written() {
    let said = |value: &str| {
        parse("x", &format!("schema = 1\nname = 'x'\n[axes]\nparams = [{value}]\n"), &[]).unwrap_err().to_string()
    };
    assert!(said("'40q'").contains("got \"40q\""), "{}", said("'40q'"));
    assert!(said("nan").contains("got nan"), "{}", said("nan"));
}

/// Run with `ISOLOSS_BLESS=1` to write the file anew.
#[test]
fn the_published_schema_is_the_key_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sweeps/sweep.schema.json");
    let generated = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("ISOLOSS_BLESS").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), generated);
}

#[test]
fn key_names_are_unique() {
    let mut names: Vec<&str> = key::KEYS.iter().map(|key| key.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), key::KEYS.len());
    assert!(key::KEYS.iter().all(|key| !key.doc.is_empty()));
}
