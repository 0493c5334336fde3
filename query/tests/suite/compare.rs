//! Whether two answers are the same: the rules of `tests/sql/README.md`.

use serde_json::{Map, Value};

const RELATIVE: f64 = 1e-9;
const ABSOLUTE: f64 = 1e-12;

/// A case's rules.
pub struct Rules {
    pub ordered: bool,
    pub order_keys: Option<Vec<String>>,
    pub set_columns: Vec<String>,
    pub tolerance: Map<String, Value>,
    pub count_only: bool,
    /// Whether the last group of equal keys may be cut elsewhere.
    pub limited: bool,
}

impl Rules {
    pub fn of(case: &Value) -> Rules {
        let texts = |name: &str| {
            case[name].as_array().map(|all| all.iter().map(|one| one.as_str().expect("a name").to_owned()).collect())
        };
        Rules {
            ordered: case["ordered"] == true,
            order_keys: texts("order_keys"),
            set_columns: texts("set_columns").unwrap_or_default(),
            tolerance: case["tolerance"].as_object().cloned().unwrap_or_default(),
            count_only: case["compare"] == "row_count_only",
            limited: case["sql"].as_str().expect("a query").to_ascii_uppercase().contains("LIMIT"),
        }
    }

    /// `Err` says what differs.
    pub fn compare(&self, wanted: &[Value], got: &[Value]) -> Result<(), String> {
        if wanted.len() != got.len() {
            return Err(format!("{} rows, not {}: {}", got.len(), wanted.len(), shown(got)));
        }
        if self.count_only {
            return Ok(());
        }
        let (wanted, got) = (self.settled(wanted), self.settled(got));
        let Some(keys) = self.order_keys.as_ref().filter(|_| self.ordered) else {
            if self.ordered {
                return self.sequence(&wanted, &got);
            }
            return self.sequence(&self.sorted(&wanted), &self.sorted(&got));
        };
        let groups = |rows: &[Value]| {
            let mut groups: Vec<Vec<Value>> = Vec::new();
            for row in rows {
                let same = groups.last().is_some_and(|group: &Vec<Value>| {
                    keys.iter().all(|key| self.same(&group[0][key.as_str()], &row[key.as_str()], None))
                });
                if same {
                    groups.last_mut().expect("there is one").push(row.clone());
                } else {
                    groups.push(vec![row.clone()]);
                }
            }
            groups
        };
        let (wanted, got) = (groups(&wanted), groups(&got));
        if wanted.len() != got.len() {
            return Err(format!("{} groups of equal keys, not {}", got.len(), wanted.len()));
        }
        let last = wanted.len().saturating_sub(1);
        for (at, (wanted, got)) in wanted.iter().zip(&got).enumerate() {
            if at == last && self.limited {
                let alike = keys.iter().all(|key| self.same(&wanted[0][key.as_str()], &got[0][key.as_str()], None));
                if alike && wanted.len() == got.len() {
                    continue;
                }
            }
            self.sequence(&self.sorted(wanted), &self.sorted(got))?;
        }
        Ok(())
    }

    fn sequence(&self, wanted: &[Value], got: &[Value]) -> Result<(), String> {
        for (at, (wanted, got)) in wanted.iter().zip(got).enumerate() {
            let (Some(wanted), Some(got)) = (wanted.as_object(), got.as_object()) else {
                return Err("a row is no object".to_owned());
            };
            if !wanted.keys().eq(got.keys()) {
                return Err(format!("columns {:?}, not {:?}", got.keys(), wanted.keys()));
            }
            for (name, value) in wanted {
                let tolerance = self.tolerance.get(name).and_then(Value::as_f64);
                if !self.same(value, &got[name], tolerance) {
                    return Err(format!("row {at}, {name}: {}, not {value}", got[name]));
                }
            }
        }
        Ok(())
    }

    fn same(&self, wanted: &Value, got: &Value, tolerance: Option<f64>) -> bool {
        match (wanted, got) {
            (Value::Number(a), Value::Number(b)) => {
                let whole = |number: &serde_json::Number| number.is_i64() || number.is_u64();
                if whole(a) && tolerance.is_none() {
                    return a == b;
                }
                let (a, b) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
                let difference = (a - b).abs();
                difference <= ABSOLUTE || difference <= tolerance.unwrap_or(RELATIVE) * a.abs().max(b.abs())
            }
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.same(a, b, tolerance))
            }
            _ => wanted == got,
        }
    }

    /// With the elements of sets in one order.
    fn settled(&self, rows: &[Value]) -> Vec<Value> {
        let mut rows = rows.to_vec();
        for row in &mut rows {
            for name in &self.set_columns {
                if let Some(Value::Array(elements)) = row.get_mut(name) {
                    elements.sort_by_key(Value::to_string);
                }
            }
        }
        rows
    }

    fn sorted(&self, rows: &[Value]) -> Vec<Value> {
        let mut rows = rows.to_vec();
        rows.sort_by_cached_key(|row| {
            // Estimates stand last, floats are rounded well above what may differ.
            let mut key: Vec<(bool, String, String)> = row
                .as_object()
                .expect("a row is an object")
                .iter()
                .map(|(name, value)| (self.tolerance.contains_key(name), name.clone(), rounded(value)))
                .collect();
            key.sort();
            key
        });
        rows
    }
}

fn rounded(value: &Value) -> String {
    match value {
        // Exactly: those that differ in their last digit are not the same, and beyond 2^53 a float cannot tell them apart.
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(number) => format!("{:.5e}", number.as_f64().expect("a number")),
        other => other.to_string(),
    }
}

fn shown(rows: &[Value]) -> String {
    let text = Value::from(rows.to_vec()).to_string();
    text.chars().take(300).collect()
}
