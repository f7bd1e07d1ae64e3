// What the kernels are given: one call of equation (2) as plain pointers and offsets.
#pragma once

#include <cstdint>
#include <functional>

namespace ugmm {

// The leading axes of a call are gone through as `groups` (axes along which a parameter varies) times `rows` (axes along
// which only x varies). Offsets and strides count elements.
struct Offsets {  // of all groups or rows: a table, or multiples of a step
  const int64_t* table;
  int64_t step;
  int64_t operator[](int64_t i) const { return table == nullptr ? i * step : table[i]; }
};

struct Rows {  // x, or its gradient: (groups, rows, K)
  void* data;
  Offsets group, row;
  int64_t k;
  int64_t size;  // elements of the whole array
};

struct Parameter {  // loc, scale or log_weights, or a gradient: (groups, J, K); data is null where there is none
  void* data;
  Offsets group;
  int64_t j, k;
  int64_t size;
};

struct Activations {  // a, or the gradient with respect to it: (groups, rows, J), stride 1 over J
  void* data;
  Offsets group, row;
};

struct Problem {
  int64_t groups, rows, neurons, inputs;
  Rows x;
  Parameter loc, scale, log_weights;
  Activations out;
};

struct Gradients {
  Activations upstream;
  Rows x;  // data is null where it is not asked for
  Parameter loc, scale, log_weights;
  bool x_shared;           // several groups or rows add to one element of x's gradient
  bool parameters_shared;  // several groups add to one element of some parameter's gradient
};

class Pool {  // runs tasks 0..count-1 on some threads
 public:
  virtual ~Pool() = default;
  virtual int threads() const = 0;
  virtual void run(int64_t count, const std::function<void(int64_t)>& task) = 0;
};

struct Kernels {  // the entry points of one instruction set
  void (*forward_float)(const Problem&, Pool&);
  void (*forward_double)(const Problem&, Pool&);
  void (*backward_float)(const Problem&, const Gradients&, Pool&);
  void (*backward_double)(const Problem&, const Gradients&, Pool&);
  void (*exponentials_float)(const float*, float*, int64_t, int64_t);
  void (*exponentials_double)(const double*, double*, int64_t, int64_t);
};

}  // namespace ugmm
