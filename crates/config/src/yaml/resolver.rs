use serde_json::{Number, Value};

/// What a plain scalar means in YAML 1.1, as PyYAML's safe loader decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Null,
    Bool(bool),
    Int,
    Float,
    Timestamp,
    /// `<<`, a merge key where a key stands.
    Merge,
    /// `=`, which means nothing in a configuration file, but is quoted when written.
    DefaultValue,
    Text,
}

pub(super) fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Meaning::Bool(true)
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Meaning::Bool(false)
        }
        "<<" => Meaning::Merge,
        "=" => Meaning::DefaultValue,
        _ if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => Meaning::Text,
        _ if is_int(text) => Meaning::Int,
        _ if is_float(text) => Meaning::Float,
        _ if Timestamp::scan(text).is_some() => Meaning::Timestamp,
        _ => Meaning::Text,
    }
}

/// The value of a plain scalar. Integers too large for 64 bits and numbers that are not finite stay text,
/// since JSON cannot hold them; the text is the one that Python prints.
///
/// # Errors
/// A date that no calendar has.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    Ok(match meaning(text) {
        Meaning::Null => Value::Null,
        Meaning::Bool(value) => Value::Bool(value),
        Meaning::Int => int(text),
        Meaning::Float => float(text),
        Meaning::Timestamp => match Timestamp::scan(text) {
            Some(timestamp) => Value::String(timestamp.checked(text)?),
            None => Value::String(text.to_owned()),
        },
        Meaning::Merge | Meaning::DefaultValue | Meaning::Text => Value::String(text.to_owned()),
    })
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// Not empty, and made of the bytes allowed; underscores always are.
fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(|b| b == b'_' || allowed(b))
}

fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && all(text, |b| b.is_ascii_digit())
}

fn is_int(text: &str) -> bool {
    let digits = unsigned(text);
    if let Some(binary) = digits.strip_prefix("0b") {
        return all(binary, |b| matches!(b, b'0' | b'1')) && binary.bytes().any(|b| b != b'_');
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return all(hex, |b| b.is_ascii_hexdigit()) && hex.bytes().any(|b| b != b'_');
    }
    if let Some(octal) = digits.strip_prefix('0') {
        return octal.is_empty() || all(octal, |b| matches!(b, b'0'..=b'7'));
    }
    let mut parts = digits.split(':');
    parts.next().is_some_and(is_digits) && parts.all(is_sexagesimal)
}

/// One or two digits, below sixty.
fn is_sexagesimal(part: &str) -> bool {
    match part.as_bytes() {
        [units] => units.is_ascii_digit(),
        [tens, units] => matches!(tens, b'0'..=b'5') && units.is_ascii_digit(),
        _ => false,
    }
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let digits = unsigned(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['-', '+'])
            .is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()))
    });
    let Some((whole, fraction)) = mantissa.split_once('.') else {
        return false;
    };
    let fraction_ok = fraction.is_empty() || all(fraction, |b| b.is_ascii_digit());
    if whole.is_empty() {
        // A sign is not allowed in front of the point.
        return text.starts_with('.') && is_digits(fraction) && exponent_ok;
    }
    let mut parts = whole.split(':');
    let whole_ok = parts.next().is_some_and(is_digits) && parts.all(is_sexagesimal);
    whole_ok && fraction_ok && exponent_ok && (exponent.is_none() || !whole.contains(':'))
}

fn int(text: &str) -> Value {
    let plain = text.replace('_', "");
    let digits = unsigned(&plain);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        u128::from_str_radix(binary, 2).ok()
    } else if let Some(hex) = digits.strip_prefix("0x") {
        u128::from_str_radix(hex, 16).ok()
    } else if digits.len() > 1 && digits.starts_with('0') {
        u128::from_str_radix(digits, 8).ok()
    } else {
        digits.split(':').try_fold(0u128, |sum, part| {
            sum.checked_mul(60)?.checked_add(part.parse::<u128>().ok()?)
        })
    };
    let number = magnitude.and_then(|magnitude| {
        if plain.starts_with('-') {
            i64::try_from(i128::try_from(magnitude).ok()?.checked_neg()?)
                .ok()
                .map(Number::from)
        } else {
            u64::try_from(magnitude).ok().map(Number::from)
        }
    });
    match number {
        Some(number) => Value::Number(number),
        None => Value::String(plain.trim_start_matches('+').to_owned()),
    }
}

fn float(text: &str) -> Value {
    let plain = text.replace('_', "").to_ascii_lowercase();
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    match digits {
        ".inf" => return Value::String(if sign < 0.0 { "-inf" } else { "inf" }.to_owned()),
        ".nan" => return Value::String("nan".to_owned()),
        _ => {}
    }
    let magnitude = digits.split(':').fold(0.0, |sum, part| {
        sum * 60.0 + part.parse::<f64>().unwrap_or_default()
    });
    match Number::from_f64(sign * magnitude) {
        Some(number) => Value::Number(number),
        None => Value::String(if sign < 0.0 { "-inf" } else { "inf" }.to_owned()),
    }
}

/// A date, or a date and a time of day, as the text gives it.
struct Timestamp<'a> {
    date: [&'a str; 3],
    time: Option<Time<'a>>,
}

struct Time<'a> {
    clock: [&'a str; 3],
    fraction: &'a str,
    zone: Zone<'a>,
}

#[derive(Clone, Copy)]
enum Zone<'a> {
    None,
    Utc,
    Offset {
        minus: bool,
        hours: &'a str,
        minutes: &'a str,
    },
}

impl<'a> Timestamp<'a> {
    fn scan(text: &'a str) -> Option<Self> {
        let mut scan = Scan(text);
        let year = scan.digits(4, 4)?;
        scan.byte(b'-')?;
        let month = scan.digits(1, 2)?;
        scan.byte(b'-')?;
        let day = scan.digits(1, 2)?;
        let date = [year, month, day];
        if scan.0.is_empty() {
            let full = month.len() == 2 && day.len() == 2;
            return full.then_some(Timestamp { date, time: None });
        }
        if scan.byte(b'T').or_else(|| scan.byte(b't')).is_none() && scan.blanks() == 0 {
            return None;
        }
        let hour = scan.digits(1, 2)?;
        scan.byte(b':')?;
        let minute = scan.digits(2, 2)?;
        scan.byte(b':')?;
        let second = scan.digits(2, 2)?;
        let fraction = match scan.byte(b'.') {
            Some(()) => scan.digits(0, usize::MAX)?,
            None => "",
        };
        let before_zone = scan.0;
        scan.blanks();
        let zone = if scan.byte(b'Z').is_some() {
            Zone::Utc
        } else if let Some(minus) = scan
            .byte(b'-')
            .map(|()| true)
            .or_else(|| scan.byte(b'+').map(|()| false))
        {
            let hours = scan.digits(1, 2)?;
            let minutes = match scan.byte(b':') {
                Some(()) => scan.digits(2, 2)?,
                None => "0",
            };
            Zone::Offset {
                minus,
                hours,
                minutes,
            }
        } else {
            scan.0 = before_zone;
            Zone::None
        };
        let time = Time {
            clock: [hour, minute, second],
            fraction,
            zone,
        };
        scan.0.is_empty().then_some(Timestamp {
            date,
            time: Some(time),
        })
    }

    /// The text that Python prints for it.
    fn checked(&self, text: &str) -> Result<String, String> {
        let impossible = || format!("{text} is no date; quote it if it is meant as text");
        let number = |digits: &str| digits.parse::<u32>().unwrap_or(u32::MAX);
        let [year, month, day] = self.date.map(number);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            _ => 0,
        };
        if year == 0 || day == 0 || day > days {
            return Err(impossible());
        }
        let mut printed = format!("{year:04}-{month:02}-{day:02}");
        let Some(time) = &self.time else {
            return Ok(printed);
        };
        let [hour, minute, second] = time.clock.map(number);
        if hour > 23 || minute > 59 || second > 59 {
            return Err(impossible());
        }
        printed.push_str(&format!(" {hour:02}:{minute:02}:{second:02}"));
        let micros: String = time
            .fraction
            .chars()
            .chain("000000".chars())
            .take(6)
            .collect();
        if micros != "000000" {
            printed.push('.');
            printed.push_str(&micros);
        }
        match time.zone {
            Zone::None => {}
            Zone::Utc => printed.push_str("+00:00"),
            Zone::Offset {
                minus,
                hours,
                minutes,
            } => {
                let (hours, minutes) = (number(hours), number(minutes));
                if hours > 23 || minutes > 59 {
                    return Err(impossible());
                }
                let sign = if minus && hours + minutes > 0 {
                    '-'
                } else {
                    '+'
                };
                printed.push_str(&format!("{sign}{hours:02}:{minutes:02}"));
            }
        }
        Ok(printed)
    }
}

struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn byte(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(byte as char)?;
        Some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<&'a str> {
        let count = self
            .0
            .bytes()
            .take(most)
            .take_while(u8::is_ascii_digit)
            .count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits)
    }

    fn blanks(&mut self) -> usize {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let count = self.0.len() - rest.len();
        self.0 = rest;
        count
    }
}
