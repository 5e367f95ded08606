//! The binary interface as JSON, an element a line, so that a change of it is a diff that can be read.

use super::abi::{Abi, Constant, Enum, FIELD_SIZE, FIELD_TYPE, Function, Handle, Parameter, Struct};

pub fn write(abi: &Abi, version: &str) -> Result<String, String> {
    let abi_version = abi.constant("KV_ABI_VERSION").ok_or("the header has no KV_ABI_VERSION")?;
    let parts = [
        "  \"library\": \"kvstore\"".to_owned(),
        format!("  \"version\": {}", quoted(version)),
        format!("  \"abi_version\": {abi_version}"),
        list("constants", &abi.constants, constant),
        list("enums", &abi.enums, enumeration),
        list("handles", &abi.handles, handle),
        list("callbacks", &abi.callbacks, function),
        list("structs", &abi.structs, structure),
        list("functions", &abi.functions, function),
    ];
    Ok(format!("{{\n{}\n}}\n", parts.join(",\n")))
}

/// `"name": [ ... ]`, one element a line.
fn list<T>(name: &str, elements: &[T], write: impl Fn(&T) -> String) -> String {
    let lines: Vec<String> = elements.iter().map(|element| format!("\n    {}", write(element))).collect();
    format!("  \"{name}\": [{}{}]", lines.join(","), if lines.is_empty() { "" } else { "\n  " })
}

/// The list inside of an element.
fn inner<T>(elements: &[T], write: impl Fn(&T) -> String) -> String {
    let lines: Vec<String> = elements.iter().map(|element| format!("\n      {}", write(element))).collect();
    format!("[{}]", lines.join(","))
}

fn constant(constant: &Constant) -> String {
    let Constant { name, doc, value } = constant;
    format!("{{\"name\": \"{name}\", \"value\": {value}, \"doc\": {}}}", quoted(doc))
}

fn enumeration(found: &Enum) -> String {
    let Enum { name, doc, values } = found;
    format!("{{\"name\": \"{name}\", \"doc\": {}, \"values\": {}}}", quoted(doc), inner(values, constant))
}

fn handle(handle: &Handle) -> String {
    let Handle { name, doc, freed_by } = handle;
    format!("{{\"name\": \"{name}\", \"freed_by\": \"{freed_by}\", \"doc\": {}}}", quoted(doc))
}

fn structure(found: &Struct) -> String {
    let fields: Vec<_> = found.fields.iter().zip(&found.field_docs).enumerate().collect();
    let fields = inner(&fields, |(index, (name, doc))| {
        let (offset, doc) = (index * FIELD_SIZE, quoted(doc));
        let layout = format!("\"type\": \"{FIELD_TYPE}\", \"offset\": {offset}, \"size\": {FIELD_SIZE}");
        format!("{{\"name\": \"{name}\", {layout}, \"doc\": {doc}}}")
    });
    let size = found.fields.len() * FIELD_SIZE;
    let (name, doc) = (&found.name, quoted(&found.doc));
    format!("{{\"name\": \"{name}\", \"size\": {size}, \"doc\": {doc}, \"fields\": {fields}}}")
}

fn function(function: &Function) -> String {
    let (name, returns, doc) = (&function.name, &function.returns, quoted(&function.doc));
    let freed_by = optional("freed_by", function.freed_by.as_deref());
    let parameters = inner(&function.parameters, parameter);
    format!(
        "{{\"name\": \"{name}\", \"returns\": \"{returns}\"{freed_by}, \"doc\": {doc}, \"parameters\": {parameters}}}"
    )
}

fn parameter(parameter: &Parameter) -> String {
    let Parameter { name, ctype, out, length, count, freed_by, consumed } = parameter;
    let direction = if *out { "out" } else { "in" };
    let more = optional("length", length.as_deref())
        + &optional("count", count.as_deref())
        + &optional("freed_by", freed_by.as_deref())
        + if *consumed { ", \"consumed\": true" } else { "" };
    format!("{{\"name\": \"{name}\", \"type\": \"{ctype}\", \"direction\": \"{direction}\"{more}}}")
}

fn optional(key: &str, value: Option<&str>) -> String {
    value.map(|value| format!(", \"{key}\": \"{value}\"")).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
