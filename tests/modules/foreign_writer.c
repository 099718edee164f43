/* Writes access logs its own way, as modules that send them to databases do. */
#include "httpd.h"
#include "http_config.h"
#include "mod_log_config.h"
#include "apr_strings.h"

static ap_log_writer *before;

static apr_status_t writer(request_rec *r, void *handle, const char **portions, int *lengths, int count, apr_size_t length)
{
    const char **more = apr_palloc(r->pool, sizeof(*more) * (count + 1));
    int *longer = apr_palloc(r->pool, sizeof(*longer) * (count + 1));
    int at;

    more[0] = "foreign ";
    longer[0] = 8;
    for (at = 0; at < count; at++) {
        more[at + 1] = portions[at];
        longer[at + 1] = lengths[at];
    }
    return before(r, handle, more, longer, count + 1, length + 8);
}

static int pre_config(apr_pool_t *p, apr_pool_t *plog, apr_pool_t *ptemp)
{
    APR_OPTIONAL_FN_TYPE(ap_log_set_writer) *set = APR_RETRIEVE_OPTIONAL_FN(ap_log_set_writer);

    before = set(writer);
    return OK;
}

static void hooks(apr_pool_t *p)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_LAST);
}

module AP_MODULE_DECLARE_DATA foreign_writer_module = {STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, hooks};
