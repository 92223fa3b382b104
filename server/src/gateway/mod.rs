//! Protocol skins over one dispatch path.

pub mod api;
pub mod http;
pub mod ui;
