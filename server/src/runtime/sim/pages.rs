//! The bytes of one simulated file: sparse, copy-on-write pages, so that a disk of many segments is cloned in no time.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a page, and of an allocation unit.
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

/// A sparse file. A page that is absent is a hole; `None` is allocated zeros.
#[derive(Clone, Default)]
pub(super) struct Pages {
    len: u64,
    pages: BTreeMap<u64, Option<Rc<[u8; PAGE_BYTES]>>>,
}

impl Pages {
    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of allocated pages.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// How many bytes from `offset` on, up to `len`, fit when only `budget_bytes` more may be allocated.
    pub(super) fn fitting_len(&self, offset: u64, len: u64, budget_bytes: u64) -> u64 {
        let mut budget_pages = budget_bytes / PAGE;
        let mut fitting = 0;
        for (page, _, piece) in pieces(offset, len) {
            if !self.pages.contains_key(&page) {
                if budget_pages == 0 {
                    break;
                }
                budget_pages -= 1;
            }
            fitting += piece as u64;
        }
        fitting
    }

    /// Reads what there is; the count is short at the end of the file.
    pub(super) fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let available = self.len.saturating_sub(offset).min(target.len() as u64);
        let mut done = 0;
        for (page, start, piece) in pieces(offset, available) {
            let part = &mut target[done..done + piece];
            match self.pages.get(&page) {
                Some(Some(bytes)) => part.copy_from_slice(&bytes[start..start + piece]),
                _ => part.fill(0),
            }
            done += piece;
        }
        done
    }

    /// All of it.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// Writes, extending the file when need be.
    pub(super) fn write(&mut self, offset: u64, source: &[u8]) {
        let mut done = 0;
        for (page, start, piece) in pieces(offset, source.len() as u64) {
            let slot = self.pages.entry(page).or_default();
            let bytes = slot.get_or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(bytes)[start..start + piece].copy_from_slice(&source[done..done + piece]);
            done += piece;
        }
        if !source.is_empty() {
            self.len = self.len.max(offset + source.len() as u64);
        }
    }

    /// Writes zeros, extending the file when need be.
    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        for (page, start, piece) in pieces(offset, len) {
            let slot = self.pages.entry(page).or_default();
            if piece == PAGE_BYTES {
                *slot = None;
            } else if let Some(bytes) = slot {
                Rc::make_mut(bytes)[start..start + piece].fill(0);
            }
        }
        if len > 0 {
            self.len = self.len.max(offset + len);
        }
    }

    /// Cuts or extends; an extension is a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            let tail = (len % PAGE) as usize;
            if tail > 0
                && let Some(Some(bytes)) = self.pages.get_mut(&(len / PAGE))
            {
                Rc::make_mut(bytes)[tail..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Cuts a range at page borders: page number, start in the page, bytes.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len;
    let mut position = offset;
    std::iter::from_fn(move || {
        if position >= end {
            return None;
        }
        let start = position % PAGE;
        let piece = (PAGE - start).min(end - position);
        let page = position / PAGE;
        position += piece;
        Some((page, start as usize, piece as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    #[test]
    fn behaves_like_a_vector() {
        let mut random = Random::new(7);
        let (mut pages, mut model) = (Pages::default(), Vec::<u8>::new());
        for _ in 0..400 {
            let offset = random.below(20_000);
            let len = random.below(9_000) as usize;
            let end = offset as usize + len;
            match random.below(4) {
                0 => {
                    pages.set_len(offset);
                    model.resize(offset as usize, 0);
                }
                1 => {
                    pages.zero(offset, len as u64);
                    if len > 0 {
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].fill(0);
                    }
                }
                _ => {
                    let mut bytes = vec![0; len];
                    random.fill(&mut bytes);
                    pages.write(offset, &bytes);
                    if len > 0 {
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&bytes);
                    }
                }
            }
            assert_eq!(pages.len(), model.len() as u64);
            assert!(pages.to_vec() == model, "contents differ");
        }
    }

    #[test]
    fn counts_allocation_and_what_fits() {
        let mut pages = Pages::default();
        pages.set_len(1 << 20);
        assert_eq!(pages.allocated_bytes(), 0);
        pages.zero(0, 8192);
        assert_eq!(pages.allocated_bytes(), 8192);
        assert_eq!(pages.fitting_len(4096, 12_288, 4096), 8192);
        assert_eq!(pages.fitting_len(0, 8192, 0), 8192);
    }
}
