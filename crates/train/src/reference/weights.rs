//! The flat buffer as candle tensors, and their gradients back as one flat buffer. No arithmetic.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var, WithDType};

use crate::layout::{Layout, View};

/// One tensor per view; the stacks `experts_*` are cut into one tensor per expert, because candle's backward of
/// `narrow` copies the whole stack for each slice taken.
pub(super) struct Weights {
    tensors: HashMap<String, Vec<Tensor>>,
}

fn parts(view: &View) -> usize {
    if view.shape.len() == 3 { view.shape[0] } else { 1 }
}

impl Weights {
    /// Copies of the buffer; `tracked` ones are variables that receive gradients.
    pub(super) fn load<S: WithDType>(layout: &Layout, flat: &[S], tracked: bool) -> Result<Self> {
        let mut tensors = HashMap::new();
        for view in layout.views() {
            let count = parts(view);
            let shape = &view.shape[usize::from(count > 1 || view.shape.len() == 3)..];
            let tensor = |values: &[S]| {
                let plain = Tensor::from_slice(values, shape, &Device::Cpu)?;
                if !tracked {
                    return Ok(plain);
                }
                Var::from_tensor(&plain).map(|var| var.as_tensor().clone())
            };
            let cut = flat[view.range()].chunks_exact(view.len / count);
            tensors.insert(view.name.clone(), cut.map(tensor).collect::<Result<Vec<_>>>()?);
        }
        Ok(Self { tensors })
    }

    pub(super) fn get(&self, name: &str) -> &Tensor {
        &self.stack(name)[0]
    }

    /// The tensors of a stack, one per expert.
    pub(super) fn stack(&self, name: &str) -> &[Tensor] {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name} in this model"))
    }

    /// Gradients in layout order. Candle has operations that cut the graph without a word, so a missing gradient is a
    /// broken invariant, except an expert's: no token may have reached it.
    pub(super) fn gradient<S: WithDType>(&self, layout: &Layout, grads: &GradStore) -> Result<Vec<S>> {
        let mut flat = Vec::with_capacity(layout.len());
        for view in layout.views() {
            let stack = self.stack(&view.name);
            for tensor in stack {
                match grads.get(tensor) {
                    Some(grad) => flat.extend(grad.flatten_all()?.to_vec1::<S>()?),
                    None if view.shape.len() == 3 => {
                        flat.resize(flat.len() + view.len / stack.len(), S::zero());
                    }
                    None => panic!("tensor {} received no gradient: its graph is cut", view.name),
                }
            }
        }
        assert_eq!(flat.len(), layout.len(), "gradients do not fill the layout");
        Ok(flat)
    }
}
