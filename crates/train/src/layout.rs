//! The one parameter layout that all engines share: an ordered, gapless flat buffer of f32 with named views.
//!
//! Weights that multiply activations are stored `[in, out]`, row-major, so that `y = x W`.

use isoloss_sweep::Model;

/// A named tensor inside the flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// For example `layers.3.qkv`.
    pub name: String,
    pub shape: Vec<usize>,
    /// First element.
    pub offset: usize,
    pub len: usize,
    pub init: Init,
    /// Whether weight decay acts on it: matrices yes; norm gains and the embedding table no.
    pub decay: bool,
}

impl View {
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Ones,
    /// Normal with this standard deviation, from a stream keyed by (seed, tensor name).
    Normal(f64),
}

/// All tensors of a model, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    views: Vec<View>,
    len: usize,
}

impl Layout {
    /// Order: `embedding [V, d]`; per layer `attention_norm [d]`, `qkv [d, 3d]`, `attention_out [d, d]`, `ff_norm [d]`,
    /// then dense `gate_up [d, 2f]`, `down [f, d]`, or experts `router [d, E]`, `experts_gate_up [E, d, 2f]`,
    /// `experts_down [E, f, d]` and, with a shared expert, `shared_gate_up`, `shared_down`; `final_norm [d]`;
    /// `head [d, V]` unless tied. In `gate_up` the gate's columns come first; in `qkv` q, k, v, each head by head.
    pub fn of(model: &Model) -> Self {
        let mut layout = Self { views: Vec::new(), len: 0 };
        let d = model.width as usize;
        let vocab = model.vocab as usize;
        let into = |fan_in: usize| Init::Normal(1.0 / (fan_in as f64).sqrt());
        // Residual outputs start smaller by the root of their number, so that depth does not grow the stream (GPT-2).
        let out = |fan_in: usize| Init::Normal(1.0 / (fan_in as f64 * 2.0 * f64::from(model.layers)).sqrt());
        layout.push("embedding", &[vocab, d], Init::Normal(0.02), false);
        for layer in 0..model.layers {
            let name = |part: &str| format!("layers.{layer}.{part}");
            layout.push(name("attention_norm"), &[d], Init::Ones, false);
            layout.push(name("qkv"), &[d, 3 * d], into(d), true);
            layout.push(name("attention_out"), &[d, d], out(d), true);
            layout.push(name("ff_norm"), &[d], Init::Ones, false);
            match &model.experts {
                None => {
                    let f = model.ff as usize;
                    layout.push(name("gate_up"), &[d, 2 * f], into(d), true);
                    layout.push(name("down"), &[f, d], out(f), true);
                }
                Some(e) => {
                    let (count, f, shared) = (e.count as usize, e.ff as usize, e.shared_ff as usize);
                    layout.push(name("router"), &[d, count], Init::Normal(0.02), true);
                    layout.push(name("experts_gate_up"), &[count, d, 2 * f], into(d), true);
                    layout.push(name("experts_down"), &[count, f, d], out(f), true);
                    if shared > 0 {
                        layout.push(name("shared_gate_up"), &[d, 2 * shared], into(d), true);
                        layout.push(name("shared_down"), &[shared, d], out(shared), true);
                    }
                }
            }
        }
        layout.push("final_norm", &[d], Init::Ones, false);
        if !model.tied {
            layout.push("head", &[d, vocab], Init::Normal(0.02), true);
        }
        layout
    }

    fn push(&mut self, name: impl Into<String>, shape: &[usize], init: Init, decay: bool) {
        let len = shape.iter().product();
        self.views.push(View { name: name.into(), shape: shape.to_vec(), offset: self.len, len, init, decay });
        self.len += len;
    }

    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// The view called `name`; asking for one the model lacks is a bug.
    pub fn view(&self, name: &str) -> &View {
        self.views.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("no tensor {name} in this layout"))
    }

    /// Elements of the whole buffer: equals `params_total`.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
