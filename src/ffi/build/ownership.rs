//! What the names and types of parameters say by the conventions of the header: which are written to, where their
//! length is, and who takes back what a call returns.

use super::abi::{Abi, Function, Parameter};

/// What frees a value in new memory.
const FREE_VALUE: &str = "kv_free_buf";

pub fn annotate(abi: &mut Abi) -> Result<(), String> {
    for handle in &mut abi.handles {
        let pointer = format!("{} *", handle.name);
        let takes = |function: &&Function| function.parameters.first().is_some_and(|first| first.ctype == pointer);
        let frees = abi.functions.iter().filter(|function| ends_a_life(&function.name)).find(takes);
        handle.freed_by = frees.ok_or_else(|| format!("nothing frees a {}", handle.name))?.name.clone();
    }
    // By pointer: a handle, or a value.
    let mut owners = vec![("uint8_t *".to_owned(), FREE_VALUE.to_owned())];
    owners.extend(abi.handles.iter().map(|handle| (format!("{} *", handle.name), handle.freed_by.clone())));
    let freed_by = |pointer: &str| owners.iter().find(|(owned, _)| owned == pointer).map(|(_, by)| by.clone());
    let handles: Vec<String> = abi.handles.iter().map(|handle| format!("{} *", handle.name)).collect();

    for function in &mut abi.functions {
        function.freed_by = freed_by(&function.returns);
        let shape: Vec<(String, String)> =
            function.parameters.iter().map(|parameter| (parameter.name.clone(), parameter.ctype.clone())).collect();
        let last = ends_a_life(&function.name);
        for (index, parameter) in function.parameters.iter_mut().enumerate() {
            parameter.consumed = last && index == 0;
            parameter.out = !parameter.consumed && is_out(&parameter.ctype, &handles);
            parameter.count = count(parameter, &shape);
            parameter.length = length(parameter, &shape, index);
            // A pointer to what is owned: `kv_store **`.
            let pointer = parameter.ctype.strip_suffix('*').filter(|_| parameter.out);
            parameter.freed_by = pointer.and_then(&freed_by);
        }
    }
    Ok(())
}

fn ends_a_life(function: &str) -> bool {
    function.ends_with("_free") || function == "kv_close" || function == FREE_VALUE
}

/// Whether a call writes to what a parameter of this type points at.
fn is_out(ctype: &str, handles: &[String]) -> bool {
    let to_pointer = ctype.ends_with("**");
    let to_data = ctype.ends_with('*') && !ctype.starts_with("const ") && ctype != "void *";
    to_pointer || (to_data && !handles.iter().any(|handle| handle == ctype))
}

/// `keys` and `key_lens` are arrays where there is a `count`.
fn count(parameter: &Parameter, shape: &[(String, String)]) -> Option<String> {
    let counted = shape.iter().any(|(name, ctype)| name == "count" && ctype == "size_t");
    (counted && parameter.ctype.ends_with('*') && parameter.name.ends_with('s')).then(|| "count".to_owned())
}

/// `key` has `key_len`, `keys` have `key_lens`; a buffer or a structure has the `cap` or the `size` that follows.
fn length(parameter: &Parameter, shape: &[(String, String)], index: usize) -> Option<String> {
    if !parameter.ctype.ends_with('*') {
        return None;
    }
    let singular = parameter.name.strip_suffix('s').unwrap_or(&parameter.name);
    let wanted = [format!("{}_len", parameter.name), format!("{singular}_lens")];
    let named = shape.iter().find(|(name, _)| wanted.contains(name));
    let follows = shape.get(index + 1).filter(|(name, ctype)| ctype == "size_t" && (name == "cap" || name == "size"));
    named.or(follows).map(|(name, _)| name.clone())
}
