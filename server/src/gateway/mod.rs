//! Protocol skins over one dispatch path: every request, whatever its protocol, is authenticated, authorized, judged,
//! routed and answered by the same code in `dispatch`; `http` and `wire` only parse and render.

pub mod api;
pub mod dispatch;
pub mod health;
pub mod http;
pub mod service;
pub mod ui;
pub mod wire;
