//! Values between JSON and PostgreSQL.

use std::error::Error;

use bytes::BytesMut;
use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// A JSON value as a statement's parameter: sent as text, so that it fits every type.
#[derive(Debug)]
pub struct JsonParameter(pub Value);

impl ToSql for JsonParameter {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let text = match &self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::String(text) => text.clone(),
            Value::Array(items) if matches!(kind.kind(), Kind::Array(_)) => array_text(items),
            other => other.to_string(),
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Writes PostgreSQL's text form of an array.
fn array_text(items: &[Value]) -> String {
    let one = |item: &Value| match item {
        Value::Null => "NULL".to_owned(),
        Value::Array(items) => array_text(items),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    };
    format!(
        "{{{}}}",
        items.iter().map(one).collect::<Vec<_>>().join(",")
    )
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value of any type that can be shown as JSON.
struct Shown(Value);

impl<'a> FromSql<'a> for Shown {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        decode(kind, raw).map(Shown)
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Returns a row as an object, columns in order.
///
/// # Errors
/// A column has a type that is not shown; the text says to cast it.
pub fn row_to_json(row: &Row) -> Result<Map<String, Value>, tokio_postgres::Error> {
    let mut map = Map::new();
    for (index, column) in row.columns().iter().enumerate() {
        map.insert(column.name().to_owned(), row.try_get::<_, Shown>(index)?.0);
    }
    Ok(map)
}

fn decode(kind: &Type, raw: &[u8]) -> Result<Value, Box<dyn Error + Sync + Send>> {
    Ok(match kind.kind() {
        Kind::Domain(inner) => return decode(inner, raw),
        Kind::Enum(_) => std::str::from_utf8(raw)?.into(),
        Kind::Array(inner) => return decode_array(inner, raw),
        _ => match *kind {
            Type::BOOL => bool::from_sql(kind, raw)?.into(),
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            Type::INT8 => i64::from_sql(kind, raw)?.into(),
            Type::OID => u32::from_sql(kind, raw)?.into(),
            Type::FLOAT4 => float(f64::from(f32::from_sql(kind, raw)?)),
            Type::FLOAT8 => float(f64::from_sql(kind, raw)?),
            Type::NUMERIC => numeric(raw)?,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML => {
                std::str::from_utf8(raw)?.into()
            }
            Type::CHAR => String::from_utf8_lossy(raw).into_owned().into(),
            Type::JSON => serde_json::from_slice(raw)?,
            // The first byte is the format's version.
            Type::JSONB => serde_json::from_slice(raw.get(1..).unwrap_or_default())?,
            Type::BYTEA => format!("\\x{}", hex::encode(raw)).into(),
            Type::UUID => uuid(raw).into(),
            Type::TIMESTAMP | Type::TIMESTAMPTZ => {
                timestamp(kind, i64::from_sql(&Type::INT8, raw)?)
            }
            Type::DATE => date(i32::from_sql(&Type::INT4, raw)?),
            Type::VOID => Value::Null,
            _ => return Err(format!("type {kind} is not shown; cast it: column::text").into()),
        },
    })
}

fn float(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

fn uuid(raw: &[u8]) -> String {
    let text = hex::encode(raw);
    [0..8, 8..12, 12..16, 16..20, 20..32]
        .map(|range| text.get(range).unwrap_or_default().to_owned())
        .join("-")
}

/// Microseconds since 2000-01-01, in PostgreSQL's own text form.
fn timestamp(kind: &Type, micros: i64) -> Value {
    const EPOCH: i64 = 946_684_800_000_000;
    if micros == i64::MAX || micros == i64::MIN {
        return if micros > 0 { "infinity" } else { "-infinity" }.into();
    }
    let shown = micros
        .checked_add(EPOCH)
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .map(|time| time.to_string());
    // Without a zone there is no `Z` at the end, and a blank instead of the `T`.
    shown.map_or(Value::Null, |text| {
        let text = text.trim_end_matches('Z').replace('T', " ");
        if *kind == Type::TIMESTAMPTZ {
            format!("{text}+00")
        } else {
            text
        }
        .into()
    })
}

fn date(days: i32) -> Value {
    let start = Date::constant(2000, 1, 1);
    match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        days => start
            .checked_add(Span::new().try_days(days).unwrap_or_default())
            .map_or(Value::Null, |date| date.to_string().into()),
    }
}

/// A `numeric`: a JSON number when it is whole and fits 64 bits, else text with all its digits.
fn numeric(raw: &[u8]) -> Result<Value, Box<dyn Error + Sync + Send>> {
    let word = |index: usize| -> Result<i16, Box<dyn Error + Sync + Send>> {
        let bytes = raw
            .get(index * 2..index * 2 + 2)
            .ok_or("numeric is cut short")?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (count, weight, sign, scale) = (word(0)?, word(1)?, word(2)? as u16, word(3)?);
    match sign {
        0xC000 => return Ok("NaN".into()),
        0xD000 => return Ok("Infinity".into()),
        0xF000 => return Ok("-Infinity".into()),
        _ => {}
    }
    let digit = |position: i32| -> Result<i16, Box<dyn Error + Sync + Send>> {
        // `position` counts groups of four digits from the first one.
        match usize::try_from(position) {
            Ok(index) if index < count as usize => word(4 + index),
            _ => Ok(0),
        }
    };
    let mut text = String::new();
    for group in 0..=i32::from(weight).max(-1) {
        text.push_str(&format!("{:04}", digit(group)?));
    }
    let mut text = text.trim_start_matches('0').to_owned();
    if text.is_empty() {
        text.push('0');
    }
    if scale > 0 {
        let mut fraction = String::new();
        let mut group = i32::from(weight) + 1;
        // Leading zero groups of a number below 0.0001.
        for _ in 0..(-1 - i32::from(weight)).max(0) {
            fraction.push_str("0000");
        }
        group = group.max(0);
        while fraction.len() < scale as usize {
            fraction.push_str(&format!("{:04}", digit(group)?));
            group += 1;
        }
        fraction.truncate(scale as usize);
        text = format!("{text}.{fraction}");
    }
    if sign == 0x4000 {
        text.insert(0, '-');
    }
    Ok(match text.parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => text.into(),
    })
}

fn decode_array(inner: &Type, raw: &[u8]) -> Result<Value, Box<dyn Error + Sync + Send>> {
    let mut at = 0;
    let mut next = |raw: &[u8]| -> Result<i32, Box<dyn Error + Sync + Send>> {
        let bytes = raw.get(at..at + 4).ok_or("array is cut short")?;
        at += 4;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let dimensions = next(raw)?;
    let (_flags, _element) = (next(raw)?, next(raw)?);
    match dimensions {
        0 => return Ok(Value::Array(Vec::new())),
        1 => {}
        _ => {
            return Err(
                "arrays of more than one dimension are not shown; cast them to text".into(),
            );
        }
    }
    let (length, _lower) = (next(raw)?, next(raw)?);
    let mut items = Vec::new();
    let mut at = 20;
    for _ in 0..length {
        let bytes = raw.get(at..at + 4).ok_or("array is cut short")?;
        let size = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        at += 4;
        let Ok(size) = usize::try_from(size) else {
            items.push(Value::Null);
            continue;
        };
        items.push(decode(
            inner,
            raw.get(at..at + size).ok_or("array is cut short")?,
        )?);
        at += size;
    }
    Ok(items.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric_of(weight: i16, sign: u16, scale: i16, digits: &[i16]) -> Value {
        let mut raw = Vec::new();
        for word in [digits.len() as i16, weight, sign as i16, scale]
            .iter()
            .chain(digits)
        {
            raw.extend_from_slice(&word.to_be_bytes());
        }
        numeric(&raw).expect("valid")
    }

    #[test]
    fn numerics_keep_every_digit() {
        assert_eq!(numeric_of(0, 0, 0, &[]), Value::from(0));
        assert_eq!(numeric_of(1, 0x4000, 0, &[12, 3456]), Value::from(-123_456));
        assert_eq!(numeric_of(1, 0, 0, &[5]), Value::from(50_000));
        assert_eq!(numeric_of(0, 0, 2, &[1, 5000]), Value::from("1.50"));
        assert_eq!(numeric_of(-1, 0, 4, &[12]), Value::from("0.0012"));
        assert_eq!(numeric_of(-2, 0, 6, &[1200]), Value::from("0.000012"));
        let long = numeric_of(5, 0, 0, &[9999, 9999, 9999, 9999, 9999, 9999]);
        assert_eq!(long, Value::from("9".repeat(24)));
    }

    #[test]
    fn times_look_as_the_server_writes_them() {
        assert_eq!(
            timestamp(&Type::TIMESTAMP, 0),
            Value::from("2000-01-01 00:00:00")
        );
        assert_eq!(
            timestamp(&Type::TIMESTAMPTZ, 1_500_000),
            Value::from("2000-01-01 00:00:01.5+00")
        );
        assert_eq!(date(-1), Value::from("1999-12-31"));
    }

    #[test]
    fn arrays_become_their_text_form() {
        let items = serde_json::json!(["a\"b", null, 1, ["x"]]);
        let Value::Array(items) = items else { return };
        assert_eq!(array_text(&items), r#"{"a\"b",NULL,"1",{"x"}}"#);
    }
}
