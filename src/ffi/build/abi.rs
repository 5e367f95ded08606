//! The binary interface as the header declares it: read from the header's text, so that it is what C sees.
//! Part of build.rs, which writes it as JSON, and of the tests, which hold the library against it.

use super::ownership;

type Result<T> = std::result::Result<T, String>;

pub struct Abi {
    pub constants: Vec<Constant>,
    pub enums: Vec<Enum>,
    pub handles: Vec<Handle>,
    pub callbacks: Vec<Function>,
    pub structs: Vec<Struct>,
    pub functions: Vec<Function>,
}

pub struct Constant {
    pub name: String,
    pub doc: String,
    /// As C has it: a number, or a string with its quotes.
    pub value: String,
}

pub struct Enum {
    pub name: String,
    pub doc: String,
    pub values: Vec<Constant>,
}

pub struct Handle {
    pub name: String,
    pub doc: String,
    pub freed_by: String,
}

pub struct Struct {
    pub name: String,
    pub doc: String,
    pub fields: Vec<String>,
    pub field_docs: Vec<String>,
}

pub struct Function {
    pub name: String,
    pub doc: String,
    pub returns: String,
    /// What takes back the handle that is returned.
    pub freed_by: Option<String>,
    pub parameters: Vec<Parameter>,
}

#[derive(Default)]
pub struct Parameter {
    pub name: String,
    pub ctype: String,
    /// The call writes to what it points at.
    pub out: bool,
    /// The parameter that holds the number of bytes.
    pub length: Option<String>,
    /// The parameter that holds the number of elements.
    pub count: Option<String>,
    /// What takes back the result that the call leaves here.
    pub freed_by: Option<String>,
    /// The call ends the life of what is passed.
    pub consumed: bool,
}

/// The only type of a structure's field, and its size. The structures grow at their end, so that this is all there is
/// to their layout.
pub const FIELD_TYPE: &str = "uint64_t";
pub const FIELD_SIZE: usize = 8;

impl Abi {
    pub fn parse(header: &str) -> Result<Abi> {
        let mut abi = Abi {
            constants: Vec::new(),
            enums: Vec::new(),
            handles: Vec::new(),
            callbacks: Vec::new(),
            structs: Vec::new(),
            functions: Vec::new(),
        };
        for item in items(&without_cplusplus(header), ';') {
            abi.add(item)?;
        }
        ownership::annotate(&mut abi)?;
        Ok(abi)
    }

    pub fn constant(&self, name: &str) -> Option<&str> {
        self.constants.iter().find(|constant| constant.name == name).map(|constant| constant.value.as_str())
    }

    fn add(&mut self, Item { doc, code }: Item) -> Result<()> {
        if let Some(line) = code.strip_prefix('#') {
            // A macro without a value is the guard against including twice.
            if let Some((name, value)) = line.strip_prefix("define ").and_then(|rest| rest.split_once(' ')) {
                self.constants.push(Constant { name: name.into(), doc, value: value.trim().into() });
            }
        } else if let Some(body) = code.strip_prefix("typedef enum {") {
            let (body, name) = body.rsplit_once('}').ok_or_else(|| unknown(&code))?;
            let values = items(body, ',').into_iter().map(enum_value).collect::<Result<_>>()?;
            self.enums.push(Enum { name: name.trim().into(), doc, values });
        } else if let Some(names) = code.strip_prefix("typedef struct ") {
            let name = names.split(' ').next_back().unwrap_or(names);
            self.handles.push(Handle { name: name.into(), doc, freed_by: String::new() });
        } else if let Some(function) = code.strip_prefix("typedef ") {
            self.callbacks.push(function_type(&function.replace("(*", " ").replace(")(", "("), doc)?);
        } else if let Some(definition) = code.strip_prefix("struct ").filter(|_| code.ends_with('}')) {
            self.structs.push(structure(definition, doc)?);
        } else {
            self.functions.push(function_type(&code, doc)?);
        }
        Ok(())
    }
}

/// A declaration, an enumerator or a field, with the comment before it.
struct Item {
    doc: String,
    code: String,
}

fn without_cplusplus(header: &str) -> String {
    let mut parts = header.split("#ifdef __cplusplus");
    let before = parts.next().unwrap_or_default().to_owned();
    parts.fold(before, |text, part| text + part.split_once("#endif").map_or("", |(_, rest)| rest))
}

/// Cuts `text` at each `end` that is outside of braces and comments.
fn items(text: &str, end: char) -> Vec<Item> {
    let mut found = Vec::new();
    let (mut doc, mut rest) = (String::new(), text.trim_start());
    while !rest.is_empty() {
        let length;
        if rest.starts_with("/*") {
            length = comment_length(rest);
            doc = if rest.starts_with("/**") { first_paragraph(&rest[..length]) } else { String::new() };
        } else {
            let code = match rest.starts_with('#') {
                true => rest.lines().next().unwrap_or(rest),
                false => &rest[..code_length(rest, end)],
            };
            length = code.len();
            let code = code.trim_end_matches(end);
            found.push(Item { doc: std::mem::take(&mut doc), code: code.trim().to_owned() });
        }
        rest = rest[length..].trim_start();
    }
    found
}

fn comment_length(text: &str) -> usize {
    text.find("*/").map_or(text.len(), |at| at + 2)
}

fn code_length(text: &str, end: char) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(next) = text[at..].chars().next() {
        match next {
            '/' if text[at..].starts_with("/*") => at += comment_length(&text[at..]) - next.len_utf8(),
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if next == end && depth == 0 => return at + next.len_utf8(),
            _ => {}
        }
        at += next.len_utf8();
    }
    text.len()
}

/// The first paragraph of a comment, on one line.
fn first_paragraph(comment: &str) -> String {
    let lines = comment.trim_start_matches("/**").trim_end_matches("*/").lines();
    let lines = lines.map(|line| line.trim().trim_start_matches('*').trim());
    let lines = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

fn enum_value(Item { doc, code }: Item) -> Result<Constant> {
    let (name, value) = code.split_once('=').ok_or_else(|| unknown(&code))?;
    Ok(Constant { name: name.trim().into(), doc, value: value.trim().into() })
}

fn structure(definition: &str, doc: String) -> Result<Struct> {
    let (name, body) = definition.trim_end_matches('}').split_once('{').ok_or_else(|| unknown(definition))?;
    let mut found = Struct { name: name.trim().into(), doc, fields: Vec::new(), field_docs: Vec::new() };
    for Item { doc, code } in items(body, ';') {
        match variable(&code) {
            Parameter { name, ctype, .. } if ctype == FIELD_TYPE => found.fields.push(name),
            _ => return Err(format!("a structure holds nothing but {FIELD_TYPE}: {code}")),
        }
        found.field_docs.push(doc);
    }
    Ok(found)
}

fn function_type(code: &str, doc: String) -> Result<Function> {
    let (head, parameters) =
        code.strip_suffix(')').and_then(|code| code.split_once('(')).ok_or_else(|| unknown(code))?;
    let Parameter { name, ctype: returns, .. } = variable(head);
    let parameters = match parameters.trim() {
        "void" => Vec::new(),
        list => list.split(',').map(variable).collect(),
    };
    Ok(Function { name, doc, returns, freed_by: None, parameters })
}

/// `const uint8_t *key` is `key`, of type `const uint8_t *`.
fn variable(code: &str) -> Parameter {
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let at = code.rfind([' ', '*']).map_or(0, |at| at + 1);
    Parameter { name: code[at..].into(), ctype: code[..at].trim().into(), ..Parameter::default() }
}

fn unknown(code: &str) -> String {
    format!("cannot read this declaration: {code}")
}
