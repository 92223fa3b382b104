//! Protocol skins over one dispatch path.

pub mod api;
