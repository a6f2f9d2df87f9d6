//! When an image says that it was made.

use std::ffi::OsStr;

use super::Call;
use crate::api;
use crate::env::Env;
use crate::export::CREATED;

/// When the image says that it was made (Platform API, "SOURCE_DATE_EPOCH").
pub(super) fn created(call: &Call<'_>) -> String {
    let Some(epoch) = epoch(call.env).filter(|_| call.api >= api::LEGACY_BOM_FILES) else {
        return CREATED.to_owned();
    };
    let date = epoch.parse().ok().and_then(rfc3339);
    date.unwrap_or_else(|| {
        call.warn(&format!("SOURCE_DATE_EPOCH is ignored: `{epoch}` is no number of seconds since 1970"));
        CREATED.to_owned()
    })
}

fn epoch(env: &Env) -> Option<String> {
    let epoch = env.get(OsStr::new("SOURCE_DATE_EPOCH"))?.to_string_lossy().into_owned();
    Some(epoch).filter(|epoch| !epoch.is_empty())
}

/// Seconds since 1970 as a date, in years of four digits.
fn rfc3339(seconds: i64) -> Option<String> {
    const DAY: i64 = 86_400;
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // The civil calendar in eras of 400 years that begin in March, so that a leap day is the last of its year
    // (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let from_era = day.checked_add(719_468)?;
    let (era, day) = (from_era.div_euclid(146_097), from_era.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (0..=9999)
        .contains(&year)
        .then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (315_532_801, CREATED),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), Some(date));
        }
        assert_eq!(rfc3339(253_402_300_800), None);
        assert_eq!(rfc3339(i64::MAX), None);
    }
}
