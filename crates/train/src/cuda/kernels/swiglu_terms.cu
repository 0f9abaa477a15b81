// SwiGLU: act = silu(gate) * up (Shazeer 2002.05202), for some neighbours of a row.

// In bf16 the quick functions' last bits are lost anyway.
__device__ __forceinline__ float swiglu_sigmoid(float x) {
#ifdef REAL_F32
    return 1.0f / (1.0f + expf(-x));
#else
    return __fdividef(1.0f, 1.0f + __expf(-x));
#endif
}

// `up` becomes the activation.
template <int STEP> __device__ __forceinline__ void swiglu_act(const float (&gate)[STEP], float (&up)[STEP]) {
    for (int j = 0; j < STEP; j++) {
        up[j] *= gate[j] * swiglu_sigmoid(gate[j]);
    }
}

// `gate` and `up` become their gradients, from the gradient `d` of the activation.
template <int STEP>
__device__ __forceinline__ void swiglu_gradients(float (&gate)[STEP], float (&up)[STEP], const float (&d)[STEP]) {
    for (int j = 0; j < STEP; j++) {
        float sigmoid = swiglu_sigmoid(gate[j]), silu = gate[j] * sigmoid;
        // d silu / d gate = sigmoid * (1 + gate * (1 - sigmoid)) = sigmoid + silu * (1 - sigmoid)
        gate[j] = d[j] * up[j] * (silu * (1.0f - sigmoid) + sigmoid);
        up[j] = d[j] * silu;
    }
}
