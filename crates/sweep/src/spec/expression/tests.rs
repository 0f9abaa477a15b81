use super::*;

fn environment(word: &str) -> Option<Term> {
    match word {
        "params" => Some(Term::Number(1e5)),
        "arm" => Some(Term::Text("moe".to_owned())),
        "tied" => Some(Term::Flag(true)),
        _ => None,
    }
}

fn evaluate(text: &str) -> Result<Term, Mistake> {
    Expression::parse(text, Place::default(), true)?.evaluate(&environment)
}

#[test]
fn arithmetic_follows_the_usual_precedence() {
    for (text, value) in [
        ("20 * params", 2e6),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("10 - 2 - 3", 5.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 ^ -1", 0.5),
        ("1.5k + 2e-3*1e3", 1502.0),
        ("8/2/2", 2.0),
    ] {
        assert_eq!(evaluate(text).unwrap(), Term::Number(value), "{text}");
    }
}

#[test]
fn conditions_compare_numbers_words_and_flags() {
    for (text, value) in [
        ("params > 50k and arm == 'moe'", true),
        ("not params > 50k or tied", true),
        ("params <= 1e4 or arm != 'moe'", false),
        ("not (tied == true)", false),
    ] {
        assert_eq!(evaluate(text).unwrap(), Term::Flag(value), "{text}");
    }
}

#[test]
fn mistakes_name_their_place() {
    for (text, start) in
        [("1 +", 3), ("(1 + 2", 6), ("1 $ 2", 2), ("1 2", 2), ("1 + arm", 2), ("2 * nothing", 4), ("-arm", 0)]
    {
        let mistake = evaluate(text).unwrap_err();
        assert_eq!(mistake.place.start, start, "{text}: {}", mistake.message);
    }
    assert!(evaluate(&"(".repeat(10_000)).is_err());
}
