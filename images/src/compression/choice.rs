//! Which compression a layer is made with.

use std::fmt;
use std::str::FromStr;

use crate::document::media;

/// How new layers are compressed: with gzip at its fastest, unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerCompression {
    pub(super) method: Method,
    /// 1 to [`Method::highest`]; of no meaning where nothing is compressed.
    pub(super) level: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    None,
    Gzip,
    Zstd,
}

/// The text means no compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write gzip, zstd or none, where wanted with a level: gzip:1 to gzip:9, zstd:1 to zstd:22")]
pub struct CompressionError;

impl Method {
    fn highest(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 9,
            Self::Zstd => 22,
        }
    }
}

impl LayerCompression {
    /// The media type of layers that are compressed so (OCI image specification, "Layer media types").
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self.method {
            Method::None => media::OCI_LAYER,
            Method::Gzip => media::OCI_LAYER_GZIP,
            Method::Zstd => media::OCI_LAYER_ZSTD,
        }
    }
}

impl Default for LayerCompression {
    fn default() -> Self {
        Self { method: Method::Gzip, level: 1 }
    }
}

impl FromStr for LayerCompression {
    type Err = CompressionError;

    /// `gzip`, `zstd` or `none`; the first two with or without a level behind a colon.
    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let (method, usual) = match name {
            "none" => (Method::None, 0),
            "gzip" => (Method::Gzip, Self::default().level),
            "zstd" => (Method::Zstd, 3),
            _ => return Err(CompressionError),
        };
        let Some(level) = level else { return Ok(Self { method, level: usual }) };
        // `parse` would take a sign as well.
        let level = Some(level).filter(|level| level.bytes().all(|digit| digit.is_ascii_digit()));
        let level = level.and_then(|level| level.parse().ok());
        let level = level.filter(|level| (1..=method.highest()).contains(level)).ok_or(CompressionError)?;
        Ok(Self { method, level })
    }
}

impl fmt::Display for LayerCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            Method::None => f.write_str("none"),
            Method::Gzip => write!(f, "gzip:{}", self.level),
            Method::Zstd => write!(f, "zstd:{}", self.level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_for() {
        for (text, means) in [
            ("gzip", "gzip:1"),
            ("gzip:9", "gzip:9"),
            ("zstd", "zstd:3"),
            ("zstd:1", "zstd:1"),
            ("zstd:22", "zstd:22"),
            ("none", "none"),
        ] {
            let read: LayerCompression = text.parse().unwrap();
            assert_eq!(read.to_string(), means, "{text}");
            assert_eq!(means.parse(), Ok(read));
        }
        assert_eq!("gzip".parse(), Ok(LayerCompression::default()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "", "xz", "GZIP", "gzip:", "gzip:0", "gzip:10", "gzip:+1", "zstd:23", "zstd:-1", "none:1",
            "none:0",
        ] {
            assert_eq!(text.parse::<LayerCompression>(), Err(CompressionError), "{text}");
        }
    }
}
