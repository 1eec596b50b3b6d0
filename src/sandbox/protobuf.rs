//! Reads what Go clients send: their typed clients write the built-in kinds in protobuf, and know no other way.
//!
//! A field in protobuf is a number; what it is called, the table of types says. The outcome is the JSON that Go makes
//! of the same object, so that nothing behind this has to know in which of the two it came.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Number, Value};

use super::types::{Many, TYPES, Type};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every document begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Of messages in each other. Those of the API have no loops.
const DEPTH: usize = 64;

/// Why bytes are not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not begin as Kubernetes's protobuf does.
    #[error("it does not begin with k8s and a zero byte")]
    Magic,
    /// It ends in the middle of something.
    #[error("it ends too early")]
    Short,
    /// A field is not what it is to be.
    #[error("{message}, field {field}: {why}")]
    Field {
        /// Of which message: `core.Pod`.
        message: &'static str,
        /// Its number.
        field: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// Nobody knows the type here.
    #[error("{kind:?} of {api_version:?} is not known here in protobuf; it can be sent as JSON")]
    Unknown {
        /// `apps/v1`.
        api_version: String,
        /// `Deployment`.
        kind: String,
    },
}

/// The object in a document, as Go would write it in JSON.
///
/// # Errors
///
/// The document is malformed, or of a kind that no client is expected to send.
pub fn decode(document: &[u8]) -> Result<Value, ProtobufError> {
    let document = document.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = ("", "", &[][..]);
    for field in Fields(document) {
        match field? {
            (1, Wire::Bytes(of)) => {
                for field in Fields(of) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8("TypeMeta", 1, text)?,
                        (2, Wire::Bytes(text)) => kind = utf8("TypeMeta", 2, text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(of)) => raw = of,
            _ => {}
        }
    }
    let message = TYPES
        .root(api_version, kind)
        .ok_or_else(|| ProtobufError::Unknown {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        })?;
    let mut object = Map::new();
    object.insert("kind".to_owned(), kind.into());
    object.insert("apiVersion".to_owned(), api_version.into());
    read(message, raw, DEPTH, &mut object)?;
    Ok(object.into())
}

/// What there is on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of fixed size, which no field of the API is.
    Fixed,
}

/// The fields of a message, with their numbers.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let field = self.field();
            if field.is_err() {
                self.0 = &[];
            }
            field
        })
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Wire<'a>), ProtobufError> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Short)?;
                Wire::Bytes(self.take(length)?)
            }
            1 => self.take(8).map(|_| Wire::Fixed)?,
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err(ProtobufError::Short),
        };
        Ok((tag >> 3, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ProtobufError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Short)
    }
}

fn read(
    message: &'static str,
    bytes: &[u8],
    depth: usize,
    into: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    for field in Fields(bytes) {
        let (number, wire) = field?;
        // What is newer than the table is not known here, as on an older API server.
        let Some(field) = TYPES.numbered(message, number) else {
            continue;
        };
        let place = Place {
            message,
            field: number,
            depth,
        };
        match (field.many, field.of) {
            (Many::One, Type::Message(of)) if field.is_inline() => {
                read(of, place.bytes(wire)?, place.deeper()?, into)?;
            }
            (Many::One, of) => {
                let value = value(of, wire, place)?;
                // A null is as good as nothing.
                if field.kept && !value.is_null() || !is_empty(&value) {
                    into.insert(field.name.to_owned(), value);
                }
            }
            (Many::List, of) => {
                let value = value(of, wire, place)?;
                let list = into.entry(field.name);
                if let Value::Array(list) = list.or_insert_with(|| Value::Array(Vec::new())) {
                    list.push(value);
                }
            }
            (Many::Map, of) => {
                let (key, value) = entry(of, wire, place)?;
                let map = into.entry(field.name);
                if let Value::Object(map) = map.or_insert_with(|| Value::Object(Map::new())) {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

/// An entry of a map: a message of a key and a value.
fn entry(of: Type, wire: Wire<'_>, place: Place) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), Wire::Bytes(&[]));
    for field in Fields(place.bytes(wire)?) {
        match field? {
            (1, wire) => key = place.text(wire)?.to_owned(),
            (2, wire) => found = wire,
            _ => {}
        }
    }
    Ok((key, value(of, found, place)?))
}

fn value(of: Type, wire: Wire<'_>, place: Place) -> Result<Value, ProtobufError> {
    Ok(match of {
        Type::String => place.text(wire)?.into(),
        Type::Bool => (place.number(wire)? != 0).into(),
        Type::Int => place.number(wire)?.into(),
        Type::Bytes => BASE64_STANDARD.encode(place.bytes(wire)?).into(),
        Type::Strings => Fields(place.bytes(wire)?)
            .map(|field| Ok(place.text(field?.1)?.to_owned()))
            .collect::<Result<Vec<String>, ProtobufError>>()?
            .into(),
        Type::Quantity => place.string_at(wire, 1)?.into(),
        Type::Json => {
            let bytes = place.bytes_at(wire, 1)?;
            serde_json::from_slice(bytes).map_err(|_| place.wrong("it is no JSON"))?
        }
        Type::Time | Type::MicroTime => place.time(wire, of == Type::MicroTime)?,
        Type::IntOrString => place.int_or_string(wire)?,
        Type::Message(message) => {
            let mut object = Map::new();
            read(message, place.bytes(wire)?, place.deeper()?, &mut object)?;
            object.into()
        }
    })
}

/// Which field is read.
#[derive(Clone, Copy)]
struct Place {
    message: &'static str,
    field: u64,
    depth: usize,
}

impl Place {
    fn wrong(self, why: &'static str) -> ProtobufError {
        ProtobufError::Field {
            message: self.message,
            field: self.field,
            why,
        }
    }

    fn deeper(self) -> Result<usize, ProtobufError> {
        let too_deep = || self.wrong("there are too many messages in each other");
        self.depth.checked_sub(1).ok_or_else(too_deep)
    }

    fn bytes(self, wire: Wire<'_>) -> Result<&[u8], ProtobufError> {
        match wire {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong("it must have a length")),
        }
    }

    fn text(self, wire: Wire<'_>) -> Result<&str, ProtobufError> {
        utf8(self.message, self.field, self.bytes(wire)?)
    }

    fn number(self, wire: Wire<'_>) -> Result<i64, ProtobufError> {
        match wire {
            // Two's complement, whatever the size in Go.
            Wire::Varint(number) => Ok(number.cast_signed()),
            // In a map the value may be left out.
            Wire::Bytes([]) => Ok(0),
            _ => Err(self.wrong("it must be a number")),
        }
    }

    /// The last field of this number in a message.
    fn at<'a>(self, wire: Wire<'a>, number: u64) -> Result<Option<Wire<'a>>, ProtobufError> {
        let mut found = None;
        for field in Fields(self.bytes(wire)?) {
            let (at, wire) = field?;
            if at == number {
                found = Some(wire);
            }
        }
        Ok(found)
    }

    fn bytes_at<'a>(self, wire: Wire<'a>, number: u64) -> Result<&'a [u8], ProtobufError> {
        let found = self.at(wire, number)?;
        found.map_or(Ok(&[][..]), |wire| self.bytes(wire))
    }

    fn string_at<'a>(self, wire: Wire<'a>, number: u64) -> Result<&'a str, ProtobufError> {
        utf8(self.message, self.field, self.bytes_at(wire, number)?)
    }

    fn number_at(self, wire: Wire<'_>, number: u64) -> Result<i64, ProtobufError> {
        let found = self.at(wire, number)?;
        found.map_or(Ok(0), |wire| self.number(wire))
    }

    /// RFC 3339; null where there is nothing, which is no time.
    fn time(self, wire: Wire<'_>, micros: bool) -> Result<Value, ProtobufError> {
        if self.bytes(wire)?.is_empty() {
            return Ok(Value::Null);
        }
        let nanos = self.number_at(wire, 2)?;
        let nanos = i32::try_from(nanos).map_err(|_| self.wrong("it has too many nanoseconds"))?;
        let time = Timestamp::new(self.number_at(wire, 1)?, nanos);
        let time = time.map_err(|_| self.wrong("there is no such time"))?;
        let format = if micros {
            "%Y-%m-%dT%H:%M:%S.%6fZ"
        } else {
            "%Y-%m-%dT%H:%M:%SZ"
        };
        Ok(time
            .to_zoned(TimeZone::UTC)
            .strftime(format)
            .to_string()
            .into())
    }

    fn int_or_string(self, wire: Wire<'_>) -> Result<Value, ProtobufError> {
        Ok(match self.number_at(wire, 1)? {
            0 => Number::from(self.number_at(wire, 2)?).into(),
            _ => self.string_at(wire, 3)?.into(),
        })
    }
}

fn utf8<'a>(message: &'static str, field: u64, bytes: &'a [u8]) -> Result<&'a str, ProtobufError> {
    str::from_utf8(bytes).map_err(|_| ProtobufError::Field {
        message,
        field,
        why: "it is not UTF-8",
    })
}

/// Whether Go leaves a value out where it may.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests;
