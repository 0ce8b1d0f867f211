//! Filters on lists and mappings.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, Value};

use super::super::error::say;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("difference", |left: Value, right: Value| {
        let right = items(&right, "difference")?;
        Ok::<_, Error>(unique(
            items(&left, "difference")?
                .into_iter()
                .filter(|item| !right.contains(item)),
        ))
    });
    environment.add_filter("intersect", |left: Value, right: Value| {
        let right = items(&right, "intersect")?;
        Ok::<_, Error>(unique(
            items(&left, "intersect")?
                .into_iter()
                .filter(|item| right.contains(item)),
        ))
    });
    environment.add_filter("union", |left: Value, right: Value| {
        let right = items(&right, "union")?;
        Ok::<_, Error>(unique(items(&left, "union")?.into_iter().chain(right)))
    });
    environment.add_filter("symmetric_difference", |left: Value, right: Value| {
        let left = items(&left, "symmetric_difference")?;
        let right = items(&right, "symmetric_difference")?;
        let only_left = left.iter().filter(|item| !right.contains(item));
        let only_right = right.iter().filter(|item| !left.contains(item));
        Ok::<_, Error>(unique(only_left.chain(only_right).cloned()))
    });
    environment.add_filter("unique", |list: Value| {
        Ok::<_, Error>(unique(items(&list, "unique")?))
    });
    environment.add_filter("flatten", flatten);
    environment.add_filter("dict2items", dict2items);
    environment.add_filter("items2dict", items2dict);
    environment.add_filter("combine", combine);
}

/// Returns a list's items; a text is not taken apart.
fn items(value: &Value, filter: &str) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => Ok(value.try_iter()?.collect()),
        ValueKind::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        kind => Err(say(format!(
            "`{filter}` takes lists, and is given a {kind}"
        ))),
    }
}

/// Keeps the first of equal items, in order. Texts that differ in case only are different.
fn unique(items: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn flatten(list: Value, levels: Option<usize>, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    fn into(list: &Value, levels: usize, flat: &mut Vec<Value>) -> Result<(), Error> {
        for item in items(list, "flatten")? {
            match item.kind() {
                ValueKind::Seq if levels > 0 => into(&item, levels - 1, flat)?,
                // As Ansible's, which skips nulls by default.
                ValueKind::None => {}
                _ => flat.push(item),
            }
        }
        Ok(())
    }
    let levels = levels.or(kwargs.get("levels")?).unwrap_or(64).min(64);
    kwargs.assert_all_used()?;
    let mut flat = Vec::new();
    into(&list, levels, &mut flat)?;
    Ok(flat)
}

fn names(kwargs: &Kwargs) -> Result<(String, String), Error> {
    let key = kwargs.get::<Option<String>>("key_name")?;
    let value = kwargs.get::<Option<String>>("value_name")?;
    kwargs.assert_all_used()?;
    Ok((
        key.unwrap_or_else(|| "key".to_owned()),
        value.unwrap_or_else(|| "value".to_owned()),
    ))
}

fn entries(value: &Value, filter: &str) -> Result<Vec<(Value, Value)>, Error> {
    match value.kind() {
        ValueKind::Map => value
            .try_iter()?
            .map(|key| value.get_item(&key).map(|item| (key, item)))
            .collect(),
        ValueKind::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        kind => Err(say(format!(
            "`{filter}` takes a mapping, and is given a {kind}"
        ))),
    }
}

fn dict2items(map: Value, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let (key_name, value_name) = names(&kwargs)?;
    Ok(entries(&map, "dict2items")?
        .into_iter()
        .map(|(key, value)| {
            Value::from_pairs([
                (Value::from(key_name.as_str()), key),
                (Value::from(value_name.as_str()), value),
            ])
        })
        .collect())
}

fn items2dict(list: Value, kwargs: Kwargs) -> Result<Value, Error> {
    let (key_name, value_name) = names(&kwargs)?;
    let missing = || say("`items2dict` takes mappings that have a key and a value each");
    items(&list, "items2dict")?
        .into_iter()
        .map(|item| {
            let key = item.get_attr(&key_name).map_err(|_| missing())?;
            let value = item.get_attr(&value_name).map_err(|_| missing())?;
            if key.is_undefined() || value.is_undefined() {
                return Err(missing());
            }
            Ok((key, value))
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Value::from_pairs)
}

fn combine(base: Value, others: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let recursive = kwargs.get::<Option<bool>>("recursive")?.unwrap_or(false);
    let lists = kwargs.get::<Option<String>>("list_merge")?;
    let lists = lists.unwrap_or_else(|| "replace".into());
    kwargs
        .assert_all_used()
        .map_err(|_| say("`combine` takes mappings, `recursive` and `list_merge`"))?;
    let known = [
        "replace",
        "keep",
        "append",
        "prepend",
        "append_rp",
        "prepend_rp",
    ];
    if !known.contains(&lists.as_str()) {
        return Err(say(format!("`list_merge` is one of {}", known.join(", "))));
    }
    let mut result = base;
    entries(&result, "combine")?;
    for other in others.iter() {
        if other.kind() == ValueKind::Seq {
            for item in items(other, "combine")? {
                result = merge(&result, &item, recursive, &lists)?;
            }
        } else {
            result = merge(&result, other, recursive, &lists)?;
        }
    }
    Ok(result)
}

/// What becomes of a list that both have; `_rp`: what both have is taken from the second.
fn merge_lists(old: Vec<Value>, new: Vec<Value>, how: &str) -> Vec<Value> {
    let not_in = |list: &[Value], other: &[Value]| -> Vec<Value> {
        let kept = list.iter().filter(|item| !other.contains(item));
        kept.cloned().collect()
    };
    match how {
        "keep" => old,
        "append" => [old, new].concat(),
        "prepend" => [new, old].concat(),
        "append_rp" => [not_in(&old, &new), new].concat(),
        "prepend_rp" => [new.clone(), not_in(&old, &new)].concat(),
        _ => new,
    }
}

fn merge(base: &Value, over: &Value, recursive: bool, lists: &str) -> Result<Value, Error> {
    let mut merged = entries(base, "combine")?;
    for (key, value) in entries(over, "combine")? {
        match merged.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old))
                if recursive && old.kind() == ValueKind::Map && value.kind() == ValueKind::Map =>
            {
                *old = merge(old, &value, true, lists)?;
            }
            Some((_, old)) if old.kind() == ValueKind::Seq && value.kind() == ValueKind::Seq => {
                *old = merge_lists(items(old, "combine")?, items(&value, "combine")?, lists).into();
            }
            Some((_, old)) => *old = value,
            None => merged.push((key, value)),
        }
    }
    Ok(Value::from_pairs(merged))
}
