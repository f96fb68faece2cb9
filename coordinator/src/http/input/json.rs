//! JSON from strangers: bounded in depth and size, and no key twice.
//!
//! `serde_json` alone keeps the last of two equal keys, so a proxy that looks at the first and a
//! server that obeys the second can be played against each other. Here it is an error.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Objects and arrays inside one another.
pub const DEPTH_MAX: usize = 64;
/// Values of all kinds in one body: a full context of token ids and some more, about 80 MB.
pub const VALUES_MAX: usize = (1 << 20) + (1 << 16);
/// Keys of one object: four times the largest `logit_bias`.
pub const KEYS_MAX: usize = 4096;

/// Parses one JSON document.
///
/// # Errors
///
/// A sentence that says what is wrong and where: syntax, UTF-8, a number out of range, a key that
/// comes twice, or one of the limits above.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let values = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { depth: 0, values: &values }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| error.to_string())
}

/// One value at a depth; counts the values of the document.
#[derive(Clone, Copy)]
struct Node<'a> {
    depth: usize,
    values: &'a Cell<usize>,
}

impl Node<'_> {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Node { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let count = self.values.get() + 1;
        self.values.set(count);
        if count > VALUES_MAX {
            return Err(D::Error::custom(format_args!("more than {VALUES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = crate::http::error::quote(&key);
                return Err(A::Error::custom(format_args!("the key '{key}' comes twice")));
            }
            if map.len() == KEYS_MAX {
                return Err(A::Error::custom(format_args!("an object of over {KEYS_MAX} keys")));
            }
            map.insert(key, access.next_value_seed(inner)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,0.5,18446744073709551615,9007199254740993],"b":{"c":null},"d":"é\u0000"}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_that_comes_twice_is_an_error() {
        let error = parse(br#"{"max_tokens":1,"max_tokens":100000}"#).unwrap_err();
        assert!(error.contains("'max_tokens' comes twice"), "{error}");
        assert!(parse(br#"{"a":{"b":1},"c":{"b":1}}"#).is_ok());
        assert!(parse(br#"[{"a":{"b":1,"b":1}}]"#).is_err());
    }

    #[test]
    fn depth_is_bounded_and_harmless() {
        let at = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(at(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(at(DEPTH_MAX + 1).as_bytes()).unwrap_err().contains("deeper than 64"));
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(r#"{"a":"#.repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn keys_and_values_are_bounded() {
        let keys: Vec<String> = (0..=KEYS_MAX).map(|key| format!("\"{key}\":0")).collect();
        let object = format!("{{{}}}", keys.join(","));
        assert!(parse(object.as_bytes()).unwrap_err().contains("4096 keys"));
        let array = format!("[{}0]", "0,".repeat(VALUES_MAX - 2));
        assert!(parse(array.as_bytes()).is_ok());
        let array = format!("[{}0]", "0,".repeat(VALUES_MAX - 1));
        assert!(parse(array.as_bytes()).unwrap_err().contains("values"));
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let bad: [&[u8]; 18] = [
            b"",
            b"{",
            b"nul",
            b"{} {}",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"{\"a\":1//x\n}",
            b"/**/{}",
            b"\xEF\xBB\xBF{}",
            &utf16,
            b"\xFF",
            b"\"\xC0\xAF\"",
            b"\"\xED\xA0\x80\"",
            b"\"\\ud800\"",
            b"1e400",
            b"NaN",
            b"Infinity",
            b"01",
        ];
        for bytes in bad {
            assert!(parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(parse(b" {} \n").unwrap(), json!({}));
    }

    #[test]
    fn a_number_of_a_hundred_thousand_digits_is_no_integer() {
        let digits = "9".repeat(100_000);
        assert!(parse(digits.as_bytes()).is_err());
        let fraction = format!("0.{digits}");
        assert_eq!(parse(fraction.as_bytes()).unwrap().as_f64(), Some(1.0));
    }
}
