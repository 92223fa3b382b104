//! The skin against stand-ins: an Api made of a closure, sockets that remember, a clock that is told the time.

mod conduct;
mod fakes;
mod hostile;
mod overload;
mod round_trip;
