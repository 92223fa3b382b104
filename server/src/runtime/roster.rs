//! Who waits for something: entries under numbers that are used again, each taken out at most once.
//!
//! Whoever brings what an entry waits for holds its number, and leaves with it exactly once. An entry may be taken out
//! before that, when its wait is given up; its number stays reserved until the holder leaves, who then finds nobody.

/// Entries by number. Nothing here allocates once warm.
pub struct Roster<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    waiting: usize,
}

enum Place<T> {
    Free,
    Waits(T),
    GivenUp,
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), waiting: 0 }
    }
}

impl<T> Roster<T> {
    /// Takes up an entry; its number is what [`Roster::leave`] asks for.
    #[inline]
    pub fn enter(&mut self, entry: T) -> u32 {
        self.waiting += 1;
        match self.free.pop() {
            Some(number) => {
                self.places[number as usize] = Place::Waits(entry);
                number
            }
            None => {
                self.places.push(Place::Waits(entry));
                (self.places.len() - 1) as u32
            }
        }
    }

    /// Ends an entry and frees its number; `None` when its wait was given up before. Panics when nobody has the
    /// number: serving on would mix answers up.
    #[inline]
    pub fn leave(&mut self, number: u32) -> Option<T> {
        let place = self.places.get_mut(number as usize).map(|place| std::mem::replace(place, Place::Free));
        let entry = match place {
            Some(Place::Waits(entry)) => {
                self.waiting -= 1;
                Some(entry)
            }
            Some(Place::GivenUp) => None,
            Some(Place::Free) | None => panic!("number {number} waits for nothing"),
        };
        self.free.push(number);
        entry
    }

    /// Takes out every entry whose wait is given up, in the order of their numbers.
    pub fn give_up(&mut self, mut is_given_up: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for place in &mut self.places {
            if matches!(place, Place::Waits(entry) if is_given_up(entry))
                && let Place::Waits(entry) = std::mem::replace(place, Place::GivenUp)
            {
                taken.push(entry);
            }
        }
        self.waiting -= taken.len();
        taken
    }

    /// Entries that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_taken_once_and_its_number_is_free_only_when_its_holder_has_left() {
        let mut roster = Roster::default();
        let (first, second) = (roster.enter("first"), roster.enter("second"));
        assert_eq!(roster.give_up(|entry| *entry == "first"), ["first"]);
        assert!(roster.give_up(|entry| *entry == "first").is_empty());
        assert_eq!(roster.waiting(), 1);
        let third = roster.enter("third");
        assert!(third != first && third != second, "the holder of the first has not left");
        assert_eq!((roster.leave(first), roster.leave(second)), (None, Some("second")));
        let again = [roster.enter("fourth"), roster.enter("fifth")];
        assert!(again.contains(&first) && again.contains(&second));
        assert_eq!((roster.leave(third), roster.waiting()), (Some("third"), 2));
    }

    #[test]
    #[should_panic(expected = "waits for nothing")]
    fn a_number_that_nobody_has_cannot_be_left() {
        let mut roster = Roster::default();
        let number = roster.enter(());
        roster.leave(number);
        roster.leave(number);
    }
}
