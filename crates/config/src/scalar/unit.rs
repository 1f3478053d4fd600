use super::text::python_float;

/// Units of one kind by the next smaller one, smallest first: name, and how many of the one before it
/// make one.
const MEMORY: [(&str, f64); 5] = [
    ("B", 1.0),
    ("kB", 1024.0),
    ("MB", 1024.0),
    ("GB", 1024.0),
    ("TB", 1024.0),
];
const TIME: [(&str, f64); 6] = [
    ("us", 1.0),
    ("ms", 1000.0),
    ("s", 1000.0),
    ("min", 60.0),
    ("h", 60.0),
    ("d", 24.0),
];

/// A base unit such as `8kB`: factor, kind, and place in it.
struct BaseUnit {
    factor: f64,
    units: &'static [(&'static str, f64)],
    place: usize,
}

impl BaseUnit {
    fn parse(text: &str) -> Option<BaseUnit> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (factor, name) = text.split_at(digits);
        let factor = if factor.is_empty() {
            1.0
        } else {
            factor.parse().ok()?
        };
        let units: &[_] = match name {
            "B" | "kB" | "MB" => &MEMORY,
            "ms" | "s" | "min" => &TIME,
            _ => return None,
        };
        let place = units.iter().position(|unit| unit.0 == name)?;
        (factor > 0.0).then_some(BaseUnit {
            factor,
            units,
            place,
        })
    }

    /// How many base units the unit at `place` makes.
    fn worth(&self, place: usize) -> f64 {
        let span = |from: usize, to: usize| -> f64 {
            self.units[from + 1..=to]
                .iter()
                .map(|unit| unit.1)
                .product()
        };
        let plain = if place >= self.place {
            span(self.place, place)
        } else {
            1.0 / span(place, self.place)
        };
        plain / self.factor
    }
}

/// Converts to the base unit. A fraction is rounded to a whole number of the next smaller unit, as
/// PostgreSQL does. `None`: one of the units is unknown, or they are of different kinds.
pub(super) fn to_base_unit(value: f64, unit: &str, base_unit: &str) -> Option<f64> {
    let base = BaseUnit::parse(base_unit)?;
    let place = base.units.iter().position(|known| known.0 == unit)?;
    let converted = value * base.worth(place);
    Some(match place.checked_sub(1) {
        Some(smaller) => {
            let step = base.worth(smaller);
            (converted / step).round_ties_even() * step
        }
        None => converted,
    })
}

/// An integer in the base unit, printed with the largest unit that divides it: 1024 `kB` is `1MB`. Zero and
/// what has no known unit is printed as it is.
pub fn format_integer(value: i64, base_unit: &str) -> String {
    let Some(base) = BaseUnit::parse(base_unit).filter(|_| value != 0) else {
        return value.to_string();
    };
    let total = value as f64 * base.factor;
    let whole = (base.place..base.units.len()).rev().find_map(|place| {
        let amount = total / (base.worth(place) * base.factor);
        (amount.fract() == 0.0).then(|| format!("{amount}{}", base.units[place].0))
    });
    whole.unwrap_or_else(|| value.to_string())
}

/// A number in the base unit, printed with the first unit, from the largest, that makes it whole: 4.2 `ms` is
/// `4200us`.
pub fn format_real(value: f64, base_unit: &str) -> String {
    let Some(base) = BaseUnit::parse(base_unit).filter(|_| value != 0.0) else {
        return general(value);
    };
    let whole = (0..base.units.len()).rev().find_map(|place| {
        let amount = value / base.worth(place);
        let nearest = amount.round_ties_even();
        let is_whole = nearest != 0.0 && (amount / nearest - 1.0).abs() < 1e-8;
        is_whole.then(|| format!("{}{}", general(amount), base.units[place].0))
    });
    whole.unwrap_or_else(|| format!("{}{}", general(value), base.units[base.place].0))
}

/// C's `%g`: six significant digits, no trailing zeros.
fn general(value: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    let text = if rounded != 0.0 && (rounded.abs() >= 1e6 || rounded.abs() < 1e-4) {
        let scientific = format!("{rounded:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    } else {
        python_float(rounded)
    };
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}
