//! Reading documents into types as the reference's decoders do: keys of tables fit whatever their case, and only a table is a table.
//!
//! A wrapper around any deserializer, so that errors keep their places in the text. What a type says of missing keys (`default`) and of
//! free values is its own affair.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor,
};

type Fields = Option<&'static [&'static str]>;

/// A deserializer of the reference's manners.
pub(crate) struct AsGo<D>(pub(crate) D);

macro_rules! forward {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Guest { visitor, fields: None })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for AsGo<D> {
    type Error = D::Error;

    forward! {
        deserialize_any, deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_u8,
        deserialize_u16, deserialize_u32, deserialize_u64, deserialize_f32, deserialize_f64, deserialize_char, deserialize_str,
        deserialize_string, deserialize_bytes, deserialize_byte_buf, deserialize_option, deserialize_unit, deserialize_seq,
        deserialize_map, deserialize_identifier, deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Guest { visitor, fields: None })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Guest { visitor, fields: None })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(length, Guest { visitor, fields: None })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, length, Guest { visitor, fields: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Guest { visitor, fields: Some(fields) })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Guest { visitor, fields: None })
    }
}

/// A visitor that is handed what is within in the same manners; `fields` where it makes a struct.
struct Guest<V> {
    visitor: V,
    fields: Fields,
}

macro_rules! visit {
    ($($method:ident: $value:ty),*) => {$(
        fn $method<E: Error>(self, value: $value) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guest<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String, visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(AsGo(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(AsGo(deserializer))
    }

    /// An array is no table, whose fields would be its items.
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        match self.fields {
            Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &"a table")),
            None => self.visitor.visit_seq(Within { access: items, fields: None }),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Within { access: map, fields: self.fields })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(data)
    }
}

/// Items of a list, or keys and values of a table.
struct Within<A> {
    access: A,
    fields: Fields,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.access.next_element_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Within<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(key) = self.access.next_key::<String>()? else { return Ok(None) };
        let named = match self.fields {
            Some(fields) if !fields.contains(&key.as_str()) => fields.iter().find(|field| folds(field, &key)),
            _ => None,
        };
        let key = named.map_or(key, |field| (*field).to_owned());
        seed.deserialize(StringDeserializer::<A::Error>::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.access.next_value_seed(Seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint()
    }
}

/// Whether two keys are one but for the case of their letters.
fn folds(field: &str, key: &str) -> bool {
    field.eq_ignore_ascii_case(key) || field.to_lowercase() == key.to_lowercase()
}

struct Seed<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(AsGo(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use crate::{LaunchToml, LayerToml, Plan, StoreToml, read_json, read_toml};

    #[test]
    fn keys_fit_whatever_their_case() {
        let layer: LayerToml =
            read_toml("x", "[Types]\nLAUNCH = true\n[metaData]\nKey = 1979-05-27\n").unwrap();
        assert!(layer.types.launch);
        assert_eq!(layer.metadata.unwrap().to_string(), "{ Key = 1979-05-27 }");
        let launch: LaunchToml =
            read_toml("x", "[[Processes]]\nType = \"web\"\nCommand = [\"a\"]\nWorking-Dir = \"/w\"\n")
                .unwrap();
        assert_eq!(launch.processes[0].working_dir.as_deref(), Some("/w"));
        let sha: crate::Sha = read_json("x", r#"{"SHA": "s"}"#).unwrap();
        assert_eq!(sha.sha, "s");
    }

    #[test]
    fn a_table_is_a_table() {
        for refused in ["types = []", "types = [true]", "types = \"x\"", "[[types]]\nlaunch = true"] {
            assert!(read_toml::<LayerToml>("x", refused).is_err(), "{refused}");
        }
        assert!(read_json::<crate::Sha>("x", r#"["s"]"#).is_err());
    }

    #[test]
    fn free_tables_that_are_none_count_as_missing() {
        let store: StoreToml = read_toml("x", "metadata = 3").unwrap();
        assert_eq!(store.metadata, None);
        let plan: Plan =
            read_toml("x", "[[entries]]\n[[entries.requires]]\nname = \"a\"\nmetadata = [1]\n").unwrap();
        assert_eq!(plan.entries[0].requires[0].metadata, None);
    }

    #[test]
    fn errors_keep_their_place() {
        let error = read_toml::<LayerToml>("x", "\n[types]\nlaunch = 1\n").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("line 3, column 10") && source.contains("expected a boolean"), "{source}");
    }
}
