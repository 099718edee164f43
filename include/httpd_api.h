/*
 * What src/ffi reads of httpd, APR and mod_proxy through bindgen.
 * mod_ssl's OpenSSL headers are left out on purpose: the module must build and
 * load where neither mod_ssl nor OpenSSL is present.
 */
#include "httpd.h"
#include "ap_listen.h"
#include "ap_mmn.h"
#include "ap_mpm.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "mpm_common.h"
#include "scoreboard.h"
#include "util_filter.h"

#include "apr_base64.h"
#include "apr_buckets.h"
#include "apr_errno.h"
#include "apr_network_io.h"
#include "apr_optional.h"
#include "apr_optional_hooks.h"
#include "apr_poll.h"
#include "apr_pools.h"
#include "apr_portable.h"
#include "apr_sha1.h"
#include "apr_strings.h"
#include "apr_tables.h"
#include "apr_thread_proc.h"

#include "mod_log_config.h"
#include "mod_proxy.h"

#include "shim.h"
