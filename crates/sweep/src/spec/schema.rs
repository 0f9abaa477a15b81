//! The JSON Schema of sweep files, for editors: built from the same key table that the parser reads.

use serde_json::{Map, Value as Json, json};

use super::key::{KEYS, Kind, Section};
use super::tables::LAWS;
use crate::hyper::HyperParameter;

/// JSON Schema (2020-12) of schema 1.
pub fn json_schema() -> Json {
    let mut properties = Map::new();
    properties.insert("schema".to_owned(), json!({ "const": 1, "description": "version of this language" }));
    properties.insert("name".to_owned(), json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" }));
    properties
        .insert("seed".to_owned(), json!({ "type": "integer", "minimum": 0, "description": "base seed of every run" }));
    for section in Section::ALL {
        properties.insert(section.name().to_owned(), object(section_properties(section, &single)));
    }
    properties.insert("axes".to_owned(), axes("every combination of these lists"));
    properties.insert(
        "zip".to_owned(),
        json!({ "type": "array", "items": axes("lists of equal length that move together") }),
    );
    properties.insert("arm".to_owned(), json!({ "type": "array", "items": arm() }));
    properties.insert(
        "derive".to_owned(),
        object(named_properties(
            &|_| json!({ "type": "string", "description": "arithmetic over keys and counts, such as \"20 * params\"" }),
        )),
    );
    for (name, schema) in rest() {
        properties.insert(name.to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "isoloss sweep, schema 1",
        "type": "object",
        "additionalProperties": false,
        "required": ["schema"],
        "properties": properties,
    })
}

fn object(properties: Map<String, Json>) -> Json {
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

type Shape<'a> = &'a dyn Fn(Kind) -> Json;

fn section_properties(section: Section, shape: Shape<'_>) -> Map<String, Json> {
    let keys = KEYS.iter().filter(|key| key.section == section);
    keys.map(|key| (key.short().to_owned(), described(shape(key.kind), key.doc))).collect()
}

/// Keys by their axis names; those that need their section stand in a table of its name.
fn named_properties(shape: Shape<'_>) -> Map<String, Json> {
    let flat = KEYS.iter().filter(|key| key.name == key.short());
    let mut properties: Map<String, Json> =
        flat.map(|key| (key.name.to_owned(), described(shape(key.kind), key.doc))).collect();
    for section in Section::ALL {
        properties.insert(section.name().to_owned(), object(section_properties(section, shape)));
    }
    properties
}

fn described(mut schema: Json, doc: &str) -> Json {
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(doc));
    }
    schema
}

fn axes(description: &str) -> Json {
    let mut axes = object(named_properties(&several));
    axes["description"] = json!(description);
    axes
}

fn arm() -> Json {
    let mut properties = named_properties(&|kind| match kind {
        Kind::Texts | Kind::Transforms => single(kind),
        _ => json!({ "anyOf": [single(kind), several(kind)] }),
    });
    properties.insert("name".to_owned(), json!({ "type": "string" }));
    let mut arm = object(properties);
    arm["required"] = json!(["name"]);
    arm
}

/// The values of an axis.
fn several(kind: Kind) -> Json {
    let list = json!({ "type": "array", "minItems": 1, "items": single(kind) });
    match kind {
        Kind::Count(_) | Kind::Number(..) | Kind::Positive | Kind::Bytes => {
            let ends = json!({ "type": "array", "items": number(), "minItems": 2, "maxItems": 2 });
            let scale = |name: &str| {
                json!({ "type": "object", "additionalProperties": false, "required": [name, "n"],
                    "properties": { name: ends, "n": { "type": "integer", "minimum": 2 } } })
            };
            json!({ "anyOf": [list, scale("log"), scale("linear")] })
        }
        _ => list,
    }
}

/// One value.
fn single(kind: Kind) -> Json {
    match kind {
        Kind::Count(least) => json!({ "anyOf": [{ "type": "number", "minimum": least }, suffixed()] }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Positive => json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, suffixed()] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Texts => texts(),
        Kind::Bytes => size(),
        Kind::Schedule => {
            choice(&["cosine", "wsd"], &[("cosine", one_number("final_ratio")), ("wsd", one_number("decay"))])
        }
        Kind::Tokenizer => choice(&["bytes"], &[("bpe", one_number("vocab")), ("file", json!({ "type": "string" }))]),
        Kind::Validation => json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 0.9 },
            tagged("tail", &json!({ "type": "number", "minimum": 0, "maximum": 0.9 })),
            tagged("files", &texts()),
        ] }),
        Kind::Tune => {
            let factors =
                json!({ "type": "array", "minItems": 2, "items": { "type": "number", "exclusiveMinimum": 0 } });
            let each: Map<String, Json> =
                HyperParameter::NAMES.iter().map(|name| ((*name).to_owned(), factors.clone())).collect();
            let mut table = object(each);
            table["minProperties"] = json!(1);
            json!({ "anyOf": [{ "enum": HyperParameter::NAMES }, table] })
        }
        Kind::Transforms => json!({ "type": "array", "items": choice(&["deduplicate"], &[
            ("noise", json!({ "type": "number", "minimum": 0, "maximum": 1 })),
            ("shuffle", json!({ "enum": ["sentences", "words"] })),
            ("duplicate", json!({ "type": "object", "additionalProperties": false, "required": ["fraction", "copies"],
                "properties": { "fraction": { "type": "number" }, "copies": { "type": "integer" } } })),
        ]) }),
    }
}

fn number() -> Json {
    json!({ "anyOf": [{ "type": "number" }, suffixed()] })
}

fn suffixed() -> Json {
    json!({ "type": "string", "pattern": "^[0-9._]+([eE][+-]?[0-9]+)?[kKMBGTP]?$" })
}

fn size() -> Json {
    json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[0-9._]+ ?([kKMGT]i?)?B?$" }] })
}

fn texts() -> Json {
    json!({ "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } })
}

fn one_number(name: &str) -> Json {
    json!({ "type": "object", "additionalProperties": false, "properties": { name: { "type": "number" } } })
}

fn tagged(name: &str, inner: &Json) -> Json {
    json!({ "type": "object", "additionalProperties": false, "required": [name], "properties": { name: inner } })
}

fn choice(words: &[&str], tables: &[(&str, Json)]) -> Json {
    let mut options = vec![json!({ "enum": words })];
    options.extend(tables.iter().map(|(name, inner)| tagged(name, inner)));
    json!({ "anyOf": options })
}

fn trainer() -> Json {
    let properties = json!({
        "command": { "type": "array", "items": { "type": "string" }, "minItems": 1,
            "description": "program and arguments that train a run; speaks JSON lines, runs in a folder with the files" },
        "files": { "type": "array", "items": { "type": "string" }, "minItems": 1,
            "description": "files that travel with the command; their content is part of every run's identity" },
        "version": { "type": "string", "description": "what else decides the result and lies on the workers" },
    });
    json!({ "type": "object", "additionalProperties": false, "required": ["command"], "properties": properties })
}

/// Tables that do not describe runs.
fn rest() -> Vec<(&'static str, Json)> {
    let table = |properties: Json| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let laws = [&["auto"], &LAWS[..]].concat();
    vec![
        (
            "exclude",
            json!({ "type": "array", "items": table(json!({
            "when": { "type": "string", "description": "points for which this holds are left out: \"params > 1M and arm == 'moe'\"" } })) }),
        ),
        (
            "replicates",
            table(json!({
            "seeds": { "type": "integer", "minimum": 1 }, "where": { "enum": ["all", "largest"] } })),
        ),
        (
            "budget",
            table(json!({
            "flops": { "type": "number", "minimum": 0 }, "gpu_hours": { "type": "number", "minimum": 0 },
            "wall": { "type": "string", "description": "such as \"20min\"" } })),
        ),
        (
            "retry",
            table(json!({
            "failures": { "type": "integer", "minimum": 0 }, "preemptions": { "type": "integer", "minimum": 0 } })),
        ),
        (
            "fit",
            table(json!({
            "laws": { "anyOf": [
                { "enum": laws },
                { "type": "array", "items": { "enum": LAWS }, "minItems": 1, "maxItems": 1 },
            ] },
            "holdout": { "type": "string", "pattern": "^largest [0-9.]+% by (flops|params|tokens)$" },
            "best_of": {
                "type": "array", "items": { "enum": HyperParameter::NAMES },
                "description": "hyper-parameters of which only the best value of each size and budget is fitted",
            },
            "target": table(json!({ "flops": number(), "params": number(), "tokens": number() })) })),
        ),
        ("trainer", trainer()),
        (
            "resources",
            table(json!({
                "threads": { "type": "integer", "minimum": 1, "description": "each run goes to slots that have as many" },
                "memory": size(),
                "priority": {
                    "type": "integer", "minimum": 0, "maximum": 100,
                    "description": "sweeps of higher priority go first, those of the same share the slots; 50 is usual",
                },
            })),
        ),
    ]
}
