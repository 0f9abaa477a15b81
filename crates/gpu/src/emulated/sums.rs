//! Sums over emulated devices, in the order of the devices.

use crate::collective::{Collective, Number, Numbers};
use crate::device::{Address, GpuError};

/// Joins any emulated devices: their queues are done with when a call returns, and their memory is the host's.
pub struct EmulatedSums;

impl Collective for EmulatedSums {
    fn sum(&mut self, parts: &[Vec<Numbers>]) -> Result<(), GpuError> {
        let (first, others) = parts.split_first().expect("a group has a device");
        for (part, numbers) in first.iter().enumerate() {
            let rows: Vec<Address> = std::iter::once(numbers)
                .chain(others.iter().map(|parts| &parts[part]))
                .map(|own| {
                    assert_eq!(
                        (own.number, own.count),
                        (numbers.number, numbers.count),
                        "devices ask for different sums"
                    );
                    own.address
                })
                .collect();
            match numbers.number {
                Number::F32 => add(&rows, numbers.count, |a: f32, b: f32| a + b),
                Number::F64 => add(&rows, numbers.count, |a: f64, b: f64| a + b),
                Number::U64 => add(&rows, numbers.count, |a: u64, b: u64| a + b),
            }
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "device addresses are host addresses here")]
fn add<T: Copy>(rows: &[Address], count: u64, plus: impl Fn(T, T) -> T) {
    for at in 0..count as usize {
        // SAFETY: each row lies in what `allocate` gave and holds `count` numbers on their boundary.
        unsafe {
            let values = rows.iter().map(|&row| *(row as *const T).add(at));
            let sum = values.reduce(&plus).expect("a group has a device");
            rows.iter().for_each(|&row| *(row as *mut T).add(at) = sum);
        }
    }
}
