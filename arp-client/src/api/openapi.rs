//! `/api/openapi.json`.

use super::{Answer, ok};
use serde_json::{Value, json};

pub(super) fn serve() -> Answer {
    ok(&document())
}

fn document() -> Value {
    json!({"openapi": "3.1.0"})
}
