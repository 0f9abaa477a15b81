// A stand-in for libcublasLt.so.13: products of column-major matrices in f32 sums. It takes what the manual "cuBLAS",
// section "Using the cuBLASLt API", says, of that only what is of use here, and refuses the rest.
//
//   ISOLOSS_STANDIN_TF32=0         products in TF32 read all bits of their operands; else 10 of the mantissa, as real ones
//   ISOLOSS_STANDIN_PRODUCT_MOST   multiplications of a product: larger ones are not made, for bench [no bound]

#include <cmath>
#include <map>
#include <memory>
#include <mutex>

#include "device.hpp"
#include "fail.hpp"

// cublasStatus_t.
enum Status {
    SUCCESS = 0,
    NOT_INITIALIZED = 1,
    INVALID_VALUE = 7,
    EXECUTION_FAILED = 13,
    NOT_SUPPORTED = 15,
};

#define CALL extern "C" __attribute__((visibility("default"))) Status

extern "C" int standin_ask(void *, const char *, void (*)(void *), void *, void (*)(void *));
extern "C" int standin_holds(uint64_t, uint64_t);
extern "C" int standin_device();

// cudaDataType_t, cublasComputeType_t and attributes.
const int R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77, TRANSA = 3, TRANSB = 4;
const int MAX_WORKSPACE_BYTES = 1, REDUCTION_SCHEME_MASK = 3, MIN_ALIGNMENT_A = 5, MIN_ALIGNMENT_D = 8;

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
    uint64_t element() const { return type == R_32F ? 4 : 2; }
    uint64_t bytes() const { return ((columns - 1) * uint64_t(stride) + rows) * element(); }
};

struct Description {
    int compute = 0, turned[2] = {0, 0};
};

// "Default is 256 bytes"; "default is 0" for the workspace.
struct Preference {
    uint64_t workspace = 0;
    uint32_t schemes = 7, alignment[4] = {256, 256, 256, 256};
};

// What lies in the 64 bytes of a cublasLtMatmulAlgo_t here.
struct Algorithm {
    uint64_t magic, shape, workspace;
    uint32_t alignment[4];
    uint64_t rest[3];
};
static_assert(sizeof(Algorithm) == 64, "as the library's own");

// cublasLtMatmulHeuristicResult_t.
struct Found {
    Algorithm algorithm;
    size_t workspace;
    Status state;
    float waves;
    int reserved[4];
};

const uint64_t MAGIC = 0x5a5a5a5a5a5a5a5a;

static std::mutex one;

template <class T> struct Kept {
    std::map<void *, std::shared_ptr<T>> all;
    void *add(T thing) {
        std::unique_lock<std::mutex> lock(one);
        static uint64_t next = 0x5c0000000000;
        void *handle = reinterpret_cast<void *>(next += 16);
        all[handle] = std::make_shared<T>(thing);
        return handle;
    }
    std::shared_ptr<T> find(void *handle) {
        std::unique_lock<std::mutex> lock(one);
        auto found = all.find(handle);
        return found == all.end() ? nullptr : found->second;
    }
    bool remove(void *handle) {
        std::unique_lock<std::mutex> lock(one);
        return all.erase(handle) == 1;
    }
};

static Kept<int> handles;
static Kept<Layout> layouts;
static Kept<Description> descriptions;
static Kept<Preference> preferences;

CALL cublasLtCreate(void **handle) {
    PLANTED(Status);
    int device = standin_device();
    if (device < 0) {
        return NOT_INITIALIZED;
    }
    *handle = handles.add(device);
    return SUCCESS;
}

CALL cublasLtDestroy(void *handle) {
    PLANTED(Status);
    return handles.remove(handle) ? SUCCESS : NOT_INITIALIZED;
}

CALL cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    PLANTED(Status);
    if ((type != R_32F && type != R_16BF) || rows == 0 || columns == 0 || stride < int64_t(rows)) {
        return INVALID_VALUE;
    }
    *layout = layouts.add({type, rows, columns, stride});
    return SUCCESS;
}

CALL cublasLtMatmulDescCreate(void **description, int compute, int scale) {
    PLANTED(Status);
    if ((compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32) || scale != R_32F) {
        return INVALID_VALUE;
    }
    Description made;
    made.compute = compute;
    *description = descriptions.add(made);
    return SUCCESS;
}

CALL cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
    PLANTED(Status);
    auto description = descriptions.find(handle);
    int operation = -1;
    if (!description || !value || bytes != sizeof operation || (attribute != TRANSA && attribute != TRANSB)) {
        return INVALID_VALUE;
    }
    memcpy(&operation, value, bytes);
    // CUBLAS_OP_N and CUBLAS_OP_T.
    if (operation != 0 && operation != 1) {
        return INVALID_VALUE;
    }
    description->turned[attribute - TRANSA] = operation;
    return SUCCESS;
}

CALL cublasLtMatmulPreferenceCreate(void **preference) {
    PLANTED(Status);
    *preference = preferences.add(Preference());
    return SUCCESS;
}

CALL cublasLtMatmulPreferenceDestroy(void *preference) {
    PLANTED(Status);
    return preferences.remove(preference) ? SUCCESS : INVALID_VALUE;
}

CALL cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
    PLANTED(Status);
    auto preference = preferences.find(handle);
    if (!preference || !value) {
        return INVALID_VALUE;
    }
    if (attribute == MAX_WORKSPACE_BYTES && bytes == 8) {
        memcpy(&preference->workspace, value, bytes);
        return SUCCESS;
    }
    if (attribute == REDUCTION_SCHEME_MASK && bytes == 4) {
        memcpy(&preference->schemes, value, bytes);
        return SUCCESS;
    }
    if (attribute >= MIN_ALIGNMENT_A && attribute <= MIN_ALIGNMENT_D && bytes == 4) {
        uint32_t alignment = 0;
        memcpy(&alignment, value, bytes);
        preference->alignment[attribute - MIN_ALIGNMENT_A] = alignment;
        return alignment > 0 && (alignment & (alignment - 1)) == 0 ? SUCCESS : INVALID_VALUE;
    }
    return INVALID_VALUE;
}

// A product as it was described: D [m, n] = op(A) [m, k] op(B) [k, n] + beta C.
struct Product {
    Description description;
    Layout a, b, c, d;
    uint64_t m, n, k;

    uint64_t digest() const {
        uint64_t hash = 0xcbf29ce484222325;
        auto mix = [&](uint64_t number) { hash = (hash ^ number) * 0x100000001b3; };
        mix(uint64_t(description.compute * 4 + description.turned[0] * 2 + description.turned[1]));
        for (const Layout &layout : {a, b, c, d}) {
            mix(uint64_t(layout.type));
            mix(layout.rows);
            mix(layout.columns);
            mix(uint64_t(layout.stride));
        }
        return hash;
    }
};

// The table of supported types of cublasLtMatmul, and shapes that go together.
static Status described(void *description, void *a, void *b, void *c, void *d, Product &product) {
    auto found = descriptions.find(description);
    auto left = layouts.find(a), right = layouts.find(b), onto = layouts.find(c), to = layouts.find(d);
    if (!found || !left || !right || !onto || !to) {
        return INVALID_VALUE;
    }
    product = {*found, *left, *right, *onto, *to, 0, 0, 0};
    auto [compute, turned] = product.description;
    product.m = turned[0] ? left->columns : left->rows;
    product.k = turned[0] ? left->rows : left->columns;
    product.n = turned[1] ? right->rows : right->columns;
    uint64_t depth = turned[1] ? right->columns : right->rows;
    bool fits = depth == product.k && to->rows == product.m && to->columns == product.n && onto->rows == product.m &&
                onto->columns == product.n;
    if (!fits) {
        return INVALID_VALUE;
    }
    bool floats = left->type == R_32F && right->type == R_32F && to->type == R_32F;
    bool halves = left->type == R_16BF && right->type == R_16BF && compute == COMPUTE_32F;
    return (floats || halves) && onto->type == to->type ? SUCCESS : NOT_SUPPORTED;
}

CALL cublasLtMatmulAlgoGetHeuristic(void *handle, void *description, void *a, void *b, void *c, void *d,
                                    void *preference, int wanted, Found *found, int *count) {
    PLANTED(Status);
    auto preferred = preferences.find(preference);
    if (!handles.find(handle) || !preferred || wanted < 1 || !found || !count) {
        return INVALID_VALUE;
    }
    *count = 0;
    Product product;
    if (Status status = described(description, a, b, c, d, product)) {
        return status;
    }
    const Layout *all[] = {&product.a, &product.b, &product.c, &product.d};
    for (int i = 0; i < 4; i++) {
        // No algorithm reads elements that do not lie on their own size.
        if (preferred->alignment[i] < all[i]->element()) {
            return NOT_SUPPORTED;
        }
    }
    *found = Found();
    Algorithm &algorithm = found->algorithm;
    algorithm = {MAGIC, product.digest(), preferred->workspace, {}, {}};
    memcpy(algorithm.alignment, preferred->alignment, sizeof algorithm.alignment);
    found->workspace = preferred->workspace;
    found->state = SUCCESS;
    *count = 1;
    return SUCCESS;
}

// One product on its way, with where its matrices lie.
struct Job {
    Product product;
    const char *a, *b, *c;
    char *d, *workspace;
    uint64_t workspace_bytes;
    float alpha, beta;
};

static float read(const Layout &layout, const char *matrix, uint64_t row, uint64_t column) {
    const char *at = matrix + (column * uint64_t(layout.stride) + row) * layout.element();
    if (layout.type == R_32F) {
        float value;
        memcpy(&value, at, 4);
        return value;
    }
    uint16_t half;
    memcpy(&half, at, 2);
    uint32_t bits = uint32_t(half) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// To the nearest with so many bits less, ties to even; what is no number stays so.
static uint32_t rounded(float value, int fewer) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (std::isnan(value)) {
        return bits | 0x400000;
    }
    uint32_t half = (1u << (fewer - 1)) - 1;
    return (bits + half + ((bits >> fewer) & 1)) >> fewer << fewer;
}

static void write(const Layout &layout, char *matrix, uint64_t row, uint64_t column, float value) {
    char *at = matrix + (column * uint64_t(layout.stride) + row) * layout.element();
    if (layout.type == R_32F) {
        memcpy(at, &value, 4);
    } else {
        uint16_t half = uint16_t(rounded(value, 16) >> 16);
        memcpy(at, &half, 2);
    }
}

// Columns of [rows, columns] one after another, turned already.
static std::vector<float> gathered(const Layout &layout, const char *matrix, bool turned, bool tf32) {
    uint64_t rows = turned ? layout.columns : layout.rows, columns = turned ? layout.rows : layout.columns;
    std::vector<float> all(rows * columns);
    for (uint64_t column = 0; column < columns; column++) {
        for (uint64_t row = 0; row < rows; row++) {
            float value = turned ? read(layout, matrix, column, row) : read(layout, matrix, row, column);
            if (tf32) {
                uint32_t bits = rounded(value, 13);
                memcpy(&value, &bits, 4);
            }
            all[column * rows + row] = value;
        }
    }
    return all;
}

static void multiply(void *data) {
    const Job &job = *static_cast<Job *>(data);
    const Product &product = job.product;
    // Whatever lies in the workspace is lost.
    memset(job.workspace, 0xff, std::min<uint64_t>(job.workspace_bytes, 4096));
    if (product.m * product.n * product.k > number("ISOLOSS_STANDIN_PRODUCT_MOST", UINT64_MAX)) {
        return;
    }
    bool tf32 = product.description.compute == COMPUTE_32F_FAST_TF32 && number("ISOLOSS_STANDIN_TF32", 1);
    std::vector<float> a = gathered(product.a, job.a, product.description.turned[0], tf32);
    std::vector<float> b = gathered(product.b, job.b, product.description.turned[1], tf32);
    std::vector<float> sums(product.m);
    for (uint64_t column = 0; column < product.n; column++) {
        sums.assign(product.m, 0.0f);
        for (uint64_t k = 0; k < product.k; k++) {
            const float *left = &a[k * product.m], right = b[column * product.k + k];
            for (uint64_t row = 0; row < product.m; row++) {
                sums[row] += left[row] * right;
            }
        }
        for (uint64_t row = 0; row < product.m; row++) {
            // "If beta is 0, C does not have to be a valid input."
            float before = job.beta == 0 ? 0 : job.beta * read(product.c, job.c, row, column);
            write(product.d, job.d, row, column, job.alpha * sums[row] + before);
        }
    }
}

static bool lies(const void *matrix, const Layout &layout, uint32_t alignment, const char *name) {
    uint64_t address = reinterpret_cast<uint64_t>(matrix);
    if (address % alignment != 0) {
        fprintf(stderr, "stand-in: matrix %s does not lie on the %u bytes that were said\n", name, alignment);
        return false;
    }
    if (!standin_holds(address, layout.bytes())) {
        fprintf(stderr, "stand-in: matrix %s does not lie in the GPU's memory\n", name);
        return false;
    }
    return true;
}

CALL cublasLtMatmul(void *handle, void *description, const void *alpha, const void *a, void *a_layout, const void *b,
                    void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                    const Algorithm *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
    PLANTED(Status);
    auto device = handles.find(handle);
    if (!device) {
        return NOT_INITIALIZED;
    }
    Product product;
    if (Status status = described(description, a_layout, b_layout, c_layout, d_layout, product)) {
        return status;
    }
    bool chosen = algorithm && algorithm->magic == MAGIC && algorithm->shape == product.digest();
    if (!alpha || !beta || !chosen || *device != standin_device()) {
        return INVALID_VALUE;
    }
    float one = 0, more = 0;
    memcpy(&one, alpha, 4);
    memcpy(&more, beta, 4);
    const uint32_t *on = algorithm->alignment;
    bool fit = lies(a, product.a, on[0], "A") && lies(b, product.b, on[1], "B") && lies(d, product.d, on[3], "D");
    fit = fit && (more == 0 || lies(c, product.c, on[2], "C"));
    // "In-place: C and D have the same layout."
    fit = fit && (c != d || (product.c.stride == product.d.stride && product.c.type == product.d.type));
    bool room = workspace_bytes >= algorithm->workspace && uint64_t(workspace) % 256 == 0 &&
                (workspace_bytes == 0 || standin_holds(uint64_t(workspace), workspace_bytes));
    if (!fit || !room) {
        return INVALID_VALUE;
    }
    auto *job = new Job{product,    static_cast<const char *>(a), static_cast<const char *>(b),
                        static_cast<const char *>(c), static_cast<char *>(d), static_cast<char *>(workspace),
                        workspace_bytes, one, more};
    auto drop = [](void *data) { delete static_cast<Job *>(data); };
    return standin_ask(stream, "a product", multiply, job, drop) == 0 ? SUCCESS : EXECUTION_FAILED;
}
