//! Protocol skins over one dispatch path.

pub mod api;
pub mod wire;
