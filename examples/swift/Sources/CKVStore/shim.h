#include <kvstore.h>
