// All of ttpu::ir.
#pragma once

#include "ttpu/ir/broadcasting.h"
#include "ttpu/ir/collective.h"
#include "ttpu/ir/constant.h"
#include "ttpu/ir/control_flow.h"
#include "ttpu/ir/convert.h"
#include "ttpu/ir/convolution.h"
#include "ttpu/ir/custom_call.h"
#include "ttpu/ir/dot.h"
#include "ttpu/ir/elementwise.h"
#include "ttpu/ir/gather_scatter.h"
#include "ttpu/ir/linalg.h"
#include "ttpu/ir/module.h"
#include "ttpu/ir/random.h"
#include "ttpu/ir/reduce.h"
#include "ttpu/ir/shape_ops.h"
#include "ttpu/ir/sharding.h"
