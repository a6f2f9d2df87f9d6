//! From any value to an ordered tree, which [`crate::write_toml`] writes.

use std::fmt;

use serde::ser::{self, Impossible, Serialize};

use crate::go_values::{toml_date, toml_float};

/// A value in the order of its fields.
#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Nothing,
    /// A number, flag or date, as it is written.
    Literal(String),
    Text(String),
    /// Text that the reference passes through its JSON writer.
    EscapedText(String),
    Array(Vec<Tree>),
    Table(Vec<(String, Tree)>),
}

/// The name of a newtype whose texts become [`Tree::EscapedText`].
pub(crate) const ESCAPED: &str = "coracle_cnb::Escaped";

#[derive(Debug)]
pub(crate) struct TreeError(pub(crate) String);

impl fmt::Display for TreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for TreeError {}

impl ser::Error for TreeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Result<T> = std::result::Result<T, TreeError>;

pub(crate) struct TreeSerializer;

macro_rules! literals {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<Tree> {
            Ok(Tree::Literal(value.to_string()))
        }
    )*};
}

impl ser::Serializer for TreeSerializer {
    type Ok = Tree;
    type Error = TreeError;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Impossible<Tree, TreeError>;
    type SerializeTupleVariant = Impossible<Tree, TreeError>;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Tree, TreeError>;

    literals! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    }

    fn serialize_f32(self, value: f32) -> Result<Tree> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Tree> {
        Ok(Tree::Literal(toml_float(value)))
    }

    fn serialize_char(self, value: char) -> Result<Tree> {
        Ok(Tree::Text(value.to_string()))
    }

    fn serialize_str(self, value: &str) -> Result<Tree> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<Tree> {
        Err(ser::Error::custom("bytes have no form in TOML"))
    }

    fn serialize_none(self) -> Result<Tree> {
        Ok(Tree::Nothing)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Tree> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Tree> {
        Ok(Tree::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree> {
        Ok(Tree::Nothing)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Tree> {
        Ok(Tree::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, name: &'static str, value: &T) -> Result<Tree> {
        let tree = value.serialize(self)?;
        Ok(if name == ESCAPED { escaped(tree) } else { tree })
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree> {
        Ok(Tree::Table(vec![(variant.to_owned(), value.serialize(self)?)]))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items> {
        Ok(Items(Vec::new()))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items> {
        Ok(Items(Vec::new()))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        Err(ser::Error::custom("tuples have no form in TOML"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        Err(ser::Error::custom("tuples have no form in TOML"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields> {
        Ok(Fields { fields: Vec::new(), key: None })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields> {
        Ok(Fields { fields: Vec::new(), key: None })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        Err(ser::Error::custom("variants with fields have no form here"))
    }
}

fn escaped(tree: Tree) -> Tree {
    match tree {
        Tree::Text(text) => Tree::EscapedText(text),
        Tree::Array(items) => Tree::Array(items.into_iter().map(escaped).collect()),
        other => other,
    }
}

pub(crate) struct Items(Vec<Tree>);

impl ser::SerializeSeq for Items {
    type Ok = Tree;
    type Error = TreeError;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        self.0.push(value.serialize(TreeSerializer)?);
        Ok(())
    }

    fn end(self) -> Result<Tree> {
        Ok(Tree::Array(self.0))
    }
}

impl ser::SerializeTuple for Items {
    type Ok = Tree;
    type Error = TreeError;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Tree> {
        ser::SerializeSeq::end(self)
    }
}

pub(crate) struct Fields {
    fields: Vec<(String, Tree)>,
    key: Option<String>,
}

impl ser::SerializeMap for Fields {
    type Ok = Tree;
    type Error = TreeError;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<()> {
        match key.serialize(TreeSerializer)? {
            Tree::Text(text) => self.key = Some(text),
            _ => return Err(ser::Error::custom("keys must be text")),
        }
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<()> {
        let key = self.key.take().ok_or_else(|| TreeError("a value without a key".into()))?;
        self.fields.push((key, value.serialize(TreeSerializer)?));
        Ok(())
    }

    fn end(self) -> Result<Tree> {
        Ok(Tree::Table(self.fields))
    }
}

impl ser::SerializeStruct for Fields {
    type Ok = Tree;
    type Error = TreeError;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.fields.push((key.to_owned(), value.serialize(TreeSerializer)?));
        Ok(())
    }

    fn end(self) -> Result<Tree> {
        // Dates travel through serde as a struct with one private field.
        match self.fields.as_slice() {
            [(key, Tree::Text(date))] if key == "$__toml_private_datetime" => {
                let date = date.parse().map_err(|error: toml::value::DatetimeParseError| {
                    TreeError(format!("date `{date}`: {error}"))
                })?;
                Ok(Tree::Literal(toml_date(&date)))
            }
            _ => Ok(Tree::Table(self.fields)),
        }
    }
}
