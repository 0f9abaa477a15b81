//! Commands in the making: one function for each kernel, with the launch that its comment asks for. It knows no model.

use isoloss_gpu::{Address, Argument, Command, Kind, Launch, Matrix, Product};

/// Commands, in order.
#[derive(Debug, Default)]
pub(super) struct Steps {
    commands: Vec<Command>,
}

/// Rows of sequences, and the width of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) sequences: usize,
    pub(super) positions: usize,
}

impl Rows {
    pub(super) fn count(self) -> usize {
        self.sequences * self.positions
    }
}

/// A count as a kernel takes it; products of counts that may pass 31 bits are made in the kernel.
pub(super) fn int(count: usize) -> Argument {
    Argument::Int(i32::try_from(count).expect("sizes of a model and of a batch fit into 31 bits"))
}

fn blocks(work: usize, each: usize) -> u32 {
    u32::try_from(work.div_ceil(each).max(1)).expect("a grid fits into 32 bits")
}

pub(super) fn at(address: Address) -> Argument {
    Argument::Address(address)
}

/// Null where there is none.
pub(super) fn or_none(address: Option<Address>) -> Argument {
    address.map_or(Argument::NONE, Argument::Address)
}

impl Steps {
    pub(super) fn take(self) -> Vec<Command> {
        self.commands
    }

    pub(super) fn launch<const A: usize>(
        &mut self,
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        arguments: [Argument; A],
    ) {
        self.commands.push(Command::Launch(Launch { kernel, grid, block, shared, arguments: arguments.to_vec() }));
    }

    /// A kernel over rows or elements: blocks of 256 threads, each for `each` of `work`.
    pub(super) fn over<const A: usize>(
        &mut self,
        kernel: &'static str,
        work: usize,
        each: usize,
        arguments: [Argument; A],
    ) {
        self.launch(kernel, [blocks(work, each), 1, 1], 256, 0, arguments);
    }

    pub(super) fn product(&mut self, product: Product) {
        self.commands.push(Command::Product(product));
    }
}

/// A product's matrices before it is known where they lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) address: Address,
    pub(super) columns: usize,
    pub(super) kind: Kind,
}

impl Operand {
    pub(super) fn matrix(self) -> Matrix {
        Matrix::new(self.address, self.columns, self.kind)
    }
}
