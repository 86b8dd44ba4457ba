//! `key:value` lists, the grammar of `--extra-inputs` and `--header`.

use serde_json::{Map, Number, Value};

/// Reads one item of `--extra-inputs`: a JSON object, or `key:value` pairs with commas between them, whose values are
/// taken for what they look like.
pub(crate) fn fields(item: &str) -> Result<Map<String, Value>, String> {
    if let Some(object) = object(item)? {
        return Ok(object);
    }
    let mut fields = Map::new();
    for part in item.split(',') {
        let (key, value) = pair(part).ok_or_else(|| {
            format!("expected key:value pairs or a JSON object, but {part:?} has no key before a colon")
        })?;
        fields.insert(key.into(), coerce(value)?);
    }
    Ok(fields)
}

/// Reads one item of `--header`: a JSON object, or `Name:Value` pairs with commas between them. What stands after a
/// comma and has no colon still belongs to the value before it.
pub(crate) fn headers(item: &str) -> Result<Vec<(String, String)>, String> {
    if let Some(object) = object(item)? {
        return object.into_iter().map(header_of).collect();
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for part in item.split(',') {
        match (pair(part), headers.last_mut()) {
            (Some((name, value)), _) => headers.push((name.into(), value.into())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part.trim_end());
            }
            (None, None) => return Err("expected Name:Value or a JSON object".into()),
        }
    }
    Ok(headers)
}

fn header_of((name, value): (String, Value)) -> Result<(String, String), String> {
    match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(_) | Value::Bool(_) => Ok((name, value.to_string())),
        _ => Err(format!("the value of {name:?} is neither text nor a number")),
    }
}

fn object(item: &str) -> Result<Option<Map<String, Value>>, String> {
    if !item.trim_start().starts_with('{') {
        return Ok(None);
    }
    serde_json::from_str(item).map(Some).map_err(|e| format!("not a JSON object: {e}"))
}

fn pair(part: &str) -> Option<(&str, &str)> {
    let (key, value) = part.split_once(':')?;
    let (key, value) = (key.trim(), value.trim());
    (!key.is_empty()).then_some((key, value))
}

/// What a bare value looks like: true, false, none or null in any case; a whole number without leading zeros; digits
/// with one point in them; else text. So `1e-3` and `007` are text.
fn coerce(value: &str) -> Result<Value, String> {
    let lower = value.to_ascii_lowercase();
    match lower.as_str() {
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "none" | "null" => return Ok(Value::Null),
        _ => {}
    }
    let digits = value.strip_prefix('-').unwrap_or(value);
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if numeric(digits) && (digits == "0" || !digits.starts_with('0')) {
        let signed = value.parse::<i64>().map(Number::from);
        let number = signed.or_else(|_| value.parse::<u64>().map(Number::from));
        return number.map(Value::Number).map_err(|_| format!("{value} does not fit 64 bits"));
    }
    if digits.matches('.').count() == 1 && numeric(&digits.replacen('.', "", 1)) {
        let number = value.parse().ok().and_then(Number::from_f64);
        return number.map(Value::Number).ok_or_else(|| format!("{value} is too large a number"));
    }
    Ok(Value::String(value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_they_look_like() {
        for (text, want) in [
            ("true", json!(true)),
            ("False", json!(false)),
            ("None", json!(null)),
            ("null", json!(null)),
            ("0", json!(0)),
            ("-0", json!(0)),
            ("42", json!(42)),
            ("-7", json!(-7)),
            ("007", json!("007")),
            ("18446744073709551615", json!(18446744073709551615u64)),
            ("0.7", json!(0.7)),
            ("-0.5", json!(-0.5)),
            ("5.", json!(5.0)),
            (".5", json!(0.5)),
            ("1e-3", json!("1e-3")),
            ("1.2.3", json!("1.2.3")),
            ("-", json!("-")),
            (".", json!(".")),
            ("", json!("")),
            ("high", json!("high")),
        ] {
            assert_eq!(coerce(text), Ok(want), "{text:?}");
        }
        assert!(coerce("99999999999999999999999").is_err());
    }

    #[test]
    fn pairs_split_at_commas_and_at_the_first_colon() {
        let read = |item: &str| fields(item).map(Value::Object);
        assert_eq!(read("temperature:0.7, ignore_eos:true"), Ok(json!({"temperature": 0.7, "ignore_eos": true})));
        assert_eq!(read("url:http://x"), Ok(json!({"url": "http://x"})));
        assert_eq!(read(r#" {"stop": ["a", "b"], "n": {"x": "1"}}"#), Ok(json!({"stop": ["a", "b"], "n": {"x": "1"}})));
        for wrong in ["plain", ":1", "a:1,b", "{\"a\":", "{1}", ""] {
            assert!(fields(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_comma_in_a_header_value_stays() {
        let list = |item: &str| headers(item);
        let own = |n: &str, v: &str| (n.to_string(), v.to_string());
        assert_eq!(list("X-Test: abc"), Ok(vec![own("X-Test", "abc")]));
        assert_eq!(list("A:1,B:2"), Ok(vec![own("A", "1"), own("B", "2")]));
        assert_eq!(list("Accept: text/html, text/plain"), Ok(vec![own("Accept", "text/html, text/plain")]));
        assert_eq!(list(r#"{"A": "1", "B": 2}"#), Ok(vec![own("A", "1"), own("B", "2")]));
        for wrong in ["plain", ":x", r#"{"A": [1]}"#] {
            assert!(list(wrong).is_err(), "{wrong:?}");
        }
    }
}
