//! The OpenAPI 3.1 document of `/api/v1`, made from the routes and the types of their handlers. What types cannot say
//! (what a word in a path means, roles, refusals) is added here.

use aide::generate::GenContext;
use aide::openapi::{Info, OpenApi, Operation, Response};
use aide::operation::{OperationInput, OperationOutput};
use aide::transform::TransformOperation;
use axum::Json;
use axum::extract::Query;
use isoloss_wire::api::{PROBLEM_TYPE, Problem};
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::http::find::Noted;
use crate::http::idempotency::{HEADER, Key};
use crate::http::refusal::{Asked, At, Body, Refused};
use crate::tokens::Role;

/// What a word in a path means.
const WORDS: [(&str, &str); 6] = [
    ("sweep", "a sweep's id, a unique beginning of it (four digits or more) or its name"),
    ("run", "a run's id or a unique beginning of it (four digits or more)"),
    ("worker", "a worker's name"),
    ("order", "cancel, pause, resume or (sweeps only) retry; of a worker drain or undrain"),
    ("digest", "the digest of a corpus manifest"),
    ("artifact", "the digest of a file that the manifest names"),
];

/// The document before any route.
pub(crate) fn begin() -> OpenApi {
    let description = "Every refusal is an RFC 9457 problem. A new optional field keeps the version of this API, anything \
                       else raises it and the path.";
    OpenApi {
        info: Info {
            title: "isoloss".to_owned(),
            description: Some(description.to_owned()),
            version: "1".to_owned(),
            ..Info::default()
        },
        ..OpenApi::default()
    }
}

/// One sentence about an operation, and the role it needs.
pub(crate) fn said(
    role: Role,
    summary: &'static str,
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> + Copy {
    move |operation| operation.summary(summary).security_requirement_scopes("token", [role.name()])
}

/// The whole document: problems, words, names of operations.
pub(crate) fn finish(api: &OpenApi, problem: Value) -> Value {
    let mut document = serde_json::to_value(api).expect("the document is plain data");
    document["components"]["schemas"]["Problem"] = problem;
    document["components"]["securitySchemes"]["token"] = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "Reading needs none on a loopback address, corpora excepted. Roles: viewer, submitter, worker, admin.",
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            finish_operation(path, method, operation);
        }
    }
    document
}

fn finish_operation(path: &str, method: &str, operation: &mut Value) {
    let words: Vec<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    let name = |part: &str| part.replace(['{', '}', '.'], "");
    let parts: Vec<String> = path.split('/').skip(3).map(name).collect();
    operation["operationId"] = json!(format!("{method}_{}", parts.join("_")));
    let mut parameters: Vec<Value> = words.iter().map(|word| parameter(word)).collect();
    parameters.extend(operation["parameters"].as_array().cloned().unwrap_or_default());
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    let problem = json!({ "$ref": "#/components/schemas/Problem" });
    operation["responses"]["default"] =
        json!({ "description": "a refusal", "content": { PROBLEM_TYPE: { "schema": problem } } });
}

fn parameter(word: &str) -> Value {
    let meaning = WORDS.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning);
    json!({
        "name": word,
        "in": "path",
        "required": true,
        "description": meaning.expect("every word of a path is explained"),
        "schema": { "type": "string" },
    })
}

/// The schema of problems, with what it refers to put in its place.
pub(crate) fn problem() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<Problem>().to_value()
}

impl<T: JsonSchema> OperationInput for Body<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Json::<T>::operation_input(ctx, operation);
    }
}

impl<T: JsonSchema> OperationInput for Asked<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Query::<T>::operation_input(ctx, operation);
    }
}

impl<T> OperationInput for At<T> {}

impl OperationInput for Key {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        let description = "the same key and body get the same answer again; another body is refused";
        let parameter = json!({
            "name": HEADER,
            "in": "header",
            "description": description,
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
            "style": "simple",
        });
        let parameter = serde_json::from_value(parameter).expect("a parameter as OpenAPI writes it");
        operation.parameters.push(aide::openapi::ReferenceOr::Item(parameter));
    }
}

impl<T: OperationOutput> OperationOutput for Noted<T> {
    type Inner = T::Inner;

    fn operation_response(ctx: &mut GenContext, operation: &mut Operation) -> Option<Response> {
        T::operation_response(ctx, operation)
    }

    fn inferred_responses(ctx: &mut GenContext, operation: &mut Operation) -> Vec<(Option<u16>, Response)> {
        T::inferred_responses(ctx, operation)
    }
}

/// Every operation has the same refusals; `finish` says so.
impl OperationOutput for Refused {
    type Inner = Self;
}
