//! Holds an HTTP API to its OpenAPI document: every answer must be one that the document announces.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::http::Response;

/// Headers that any answer may have and that no document lists.
const COMMON: [&str; 5] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "server",
];

/// What a document promises.
#[derive(Debug)]
pub struct Contract {
    pub operations: Vec<Operation>,
}

/// One method of one path.
#[derive(Debug)]
pub struct Operation {
    /// In upper case.
    pub method: String,
    pub path: String,
    /// Parameters, references resolved.
    pub parameters: Vec<Value>,
    /// The schema of the request's body, if it takes one.
    pub body: Option<Value>,
    /// The connection may be closed without an answer (`x-may-hang-up`).
    pub may_hang_up: bool,
    /// By status.
    pub answers: BTreeMap<u16, Announced>,
}

/// An answer as it is announced.
#[derive(Debug)]
pub struct Announced {
    /// By content type. None: there is no body.
    contents: BTreeMap<String, Validator>,
    headers: BTreeMap<String, AnnouncedHeader>,
}

#[derive(Debug)]
struct AnnouncedHeader {
    required: bool,
    schema: Validator,
}

impl Contract {
    /// Reads a document. All of its references must be to its own `components`.
    ///
    /// # Errors
    /// It is not a document of OpenAPI 3.1, as far as it is used here.
    pub fn parse(document: &str) -> Result<Self> {
        let document: Value = serde_json::from_str(document)?;
        let paths = resolve(&document["paths"], &document)?;
        let mut operations = Vec::new();
        for (path, item) in object(&paths)? {
            let shared = item.get("parameters");
            for (method, operation) in object(item)? {
                if method != "parameters" {
                    let parsed = Operation::parse(path, method, operation, shared);
                    operations.push(parsed.with_context(|| format!("{method} {path}"))?);
                }
            }
        }
        Ok(Contract { operations })
    }

    /// The operation of a method and a path as the document spells it.
    ///
    /// # Errors
    /// There is none.
    pub fn operation(&self, method: &str, path: &str) -> Result<&Operation> {
        let is = |operation: &&Operation| operation.method == method && operation.path == path;
        let operation = self.operations.iter().find(is);
        operation.with_context(|| format!("the document has no {method} {path}"))
    }
}

impl Operation {
    fn parse(path: &str, method: &str, operation: &Value, shared: Option<&Value>) -> Result<Self> {
        let parameters = [shared, operation.get("parameters")];
        let parameters = parameters.into_iter().flatten().filter_map(Value::as_array);
        let body = operation.pointer("/requestBody/content/application~1json/schema");
        let mut answers = BTreeMap::new();
        for (status, answer) in object(&operation["responses"])? {
            answers.insert(status.parse()?, Announced::parse(answer)?);
        }
        Ok(Operation {
            method: method.to_uppercase(),
            path: path.to_owned(),
            parameters: parameters.flatten().cloned().collect(),
            body: body.cloned(),
            may_hang_up: operation.get("x-may-hang-up") == Some(&Value::Bool(true)),
            answers,
        })
    }

    /// Whether this answer was announced; `None` is a connection that was closed without one.
    ///
    /// # Errors
    /// It was not: what is wrong with it.
    pub fn check(&self, response: Option<&Response>) -> Result<()> {
        let what = || format!("{} {}: {response:#?}", self.method, self.path);
        let Some(response) = response else {
            ensure!(self.may_hang_up, "no answer to {}", what());
            return Ok(());
        };
        let announced = self.answers.get(&response.status);
        let announced = announced.with_context(|| format!("no such status in {}", what()))?;
        announced.check(response).with_context(what)
    }
}

impl Announced {
    fn parse(answer: &Value) -> Result<Self> {
        let mut contents = BTreeMap::new();
        for (content_type, content) in answer
            .get("content")
            .map(object)
            .transpose()?
            .into_iter()
            .flatten()
        {
            contents.insert(
                content_type.clone(),
                jsonschema::validator_for(&content["schema"])?,
            );
        }
        let mut headers = BTreeMap::new();
        for (name, header) in answer
            .get("headers")
            .map(object)
            .transpose()?
            .into_iter()
            .flatten()
        {
            let header = AnnouncedHeader {
                required: header.get("required") == Some(&Value::Bool(true)),
                schema: jsonschema::validator_for(&header["schema"])?,
            };
            headers.insert(name.to_ascii_lowercase(), header);
        }
        Ok(Announced { contents, headers })
    }

    fn check(&self, response: &Response) -> Result<()> {
        match response.header("Content-Type") {
            None => {
                ensure!(self.contents.is_empty(), "a body is missing");
                ensure!(response.body.is_empty(), "a body without a type");
            }
            Some(content_type) => {
                let schema = self.contents.get(content_type);
                let schema = schema.with_context(|| format!("not announced: {content_type}"))?;
                let body = match content_type {
                    "application/json" => response.json()?,
                    _ => Value::from(response.body.as_str()),
                };
                valid(schema, &body).context("the body")?;
            }
        }
        for (name, value) in &response.headers {
            let name = name.to_ascii_lowercase();
            match self.headers.get(&name) {
                Some(header) => {
                    valid(&header.schema, &Value::from(value.as_str())).context(name)?
                }
                None => ensure!(COMMON.contains(&name.as_str()), "not announced: {name}"),
            }
        }
        for (name, header) in &self.headers {
            ensure!(
                !header.required || response.header(name).is_some(),
                "missing: {name}"
            );
        }
        Ok(())
    }
}

fn valid(schema: &Validator, value: &Value) -> Result<()> {
    let problems: Vec<_> = schema
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value
        .as_object()
        .with_context(|| format!("not an object: {value}"))
}

/// With every reference replaced by what it refers to. None of them may lead back to itself.
fn resolve(value: &Value, document: &Value) -> Result<Value> {
    Ok(match value {
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                let target = reference
                    .strip_prefix('#')
                    .and_then(|path| document.pointer(path));
                let Some(target) = target else {
                    bail!("{reference} leads nowhere")
                };
                resolve(target, document)?
            }
            None => {
                let entry =
                    |(key, value): (&String, &Value)| Ok((key.clone(), resolve(value, document)?));
                Value::Object(map.iter().map(entry).collect::<Result<_>>()?)
            }
        },
        Value::Array(items) => items
            .iter()
            .map(|item| resolve(item, document))
            .collect::<Result<_>>()?,
        scalar => scalar.clone(),
    })
}
